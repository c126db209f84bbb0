/* A Multiboot kernel that checks what Multiboot 0.6.96 promises. Its command line is "one two". */
#include "guest.h"

#define MAGIC 0x1badb002
#ifdef KLUDGE
/* Loaded as the address fields say. */
#define FLAGS 0x10003
extern const u32 header[];
extern const u8 load_end[], bss_end[], start[];
__asm__(".section .header, \"a\"\n"
	".globl header\n"
	"header: .long 0x1badb002, 0x10003, -(0x1badb002 + 0x10003)\n"
	".long header, header, load_end, bss_end, start\n"
	".text");
#else
#define FLAGS 0x3
__asm__(".section .header, \"a\"\n"
	".long 0x1badb002, 0x3, -(0x1badb002 + 0x3)\n"
	".text");
#endif

struct information {
	u32 flags, mem_lower, mem_upper, boot_device;
	const char *cmdline;
	u32 mods_count;
	const struct module {
		u32 start, end;
		const char *arguments;
		u32 reserved;
	} *modules;
	u32 section_count, section_size;
	const u8 *sections;
	u32 section_names;
	u32 mmap_length;
	const u8 *mmap;
	u32 drives[2], config_table;
	const char *loader_name;
};

/* Behind the zeroes of the image. */
u32 zeroes[1000];
u32 marker = 0x5eed;

static void check_map(const struct information *info)
{
	u32 index = 0;
	const u8 *entry = info->mmap;

	while (entry < info->mmap + info->mmap_length) {
		CHECK_EQUAL(*(const u32 *)entry, 20);
		check_range(index++, *(const u64 *)(entry + 4), *(const u64 *)(entry + 12),
			    *(const u32 *)(entry + 20), MEMORY);
		entry += 24;
	}
	CHECK_EQUAL(index, 3);
}

#ifndef KLUDGE
#include "sections.h"
#endif

void check(void)
{
	const struct information *info = (const struct information *)entry_state.ebx;

	CHECK_EQUAL(entry_state.eax, 0x2badb002);
	check_protected_mode();
	for (u32 at = 0; at < 1000; at++)
		CHECK_EQUAL(zeroes[at], 0);
	CHECK_EQUAL(marker, 0x5eed);

#ifdef KLUDGE
	CHECK_EQUAL(info->flags, 0x24d);
#else
	CHECK_EQUAL(info->flags, 0x26d);
	check_sections(info->sections, info->section_count, info->section_size, info->section_names, &marker);
#endif
	CHECK_EQUAL(info->mem_lower, 639);
	CHECK_EQUAL(info->mem_upper, MEMORY / 1024 - 1024);
	CHECK(equal(info->cmdline, "one two"), info->cmdline[0]);
	CHECK(bytes_equal(info->loader_name, "Goldcrest ", 10), info->loader_name[0]);
	check_map(info);

	CHECK_EQUAL(info->mods_count, 3);
	for (u32 at = 0; at < 3; at++) {
		const struct module *module = &info->modules[at];
		CHECK_EQUAL(module->reserved, 0);
		check_module(module->start, module->end, module->arguments);
	}
	CHECK(equal(info->modules[0].arguments, ""), info->modules[0].arguments[0]);
	CHECK(equal(info->modules[1].arguments, "4096 9 a,b"), info->modules[1].arguments[0]);
	CHECK(equal(info->modules[2].arguments, "1 77"), info->modules[2].arguments[0]);

	/* Where a kernel that is told nothing of ACPI looks for it. */
	const u8 *rsdp = (const u8 *)0xe0000;
	while (rsdp < (const u8 *)0x100000 && !bytes_equal(rsdp, "RSD PTR ", 8))
		rsdp += 16;
	check_acpi(rsdp);
	print("as promised\n");
}
