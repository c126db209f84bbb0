/* A PVH kernel that checks what Xen's docs/misc/pvh.pandoc and start_info.h promise. Its command line is "one two". */
#include "guest.h"

__asm__(".section .note.guest, \"a\", @note\n"
	".long 4, 4, 18; .asciz \"Xen\"; .long start\n"
	".text");

struct start_info {
	u32 magic, version, flags, module_count;
	u64 modules, cmdline, rsdp, memory_map;
	u32 memory_map_count, reserved;
};

struct module {
	u64 start, size, cmdline, reserved;
};

struct range {
	u64 start, len;
	u32 kind, reserved;
};

u32 zeroes[1000];

void check(void)
{
	static const char *const arguments[] = { "", "4096 9 a,b", "1 77" };
	const struct start_info *info = (const struct start_info *)entry_state.ebx;

	check_protected_mode();
	for (u32 at = 0; at < 1000; at++)
		CHECK_EQUAL(zeroes[at], 0);
	CHECK_EQUAL(info->magic, 0x336ec578);
	CHECK_EQUAL(info->version, 1);
	CHECK_EQUAL(info->flags, 0);
	CHECK(equal((const char *)(u32)info->cmdline, "one two"), info->cmdline);

	CHECK_EQUAL(info->module_count, 3);
	const struct module *modules = (const struct module *)(u32)info->modules;
	for (u32 at = 0; at < 3; at++) {
		const struct module *module = &modules[at];
		const char *text = module->cmdline ? (const char *)(u32)module->cmdline : "";
		CHECK(equal(text, arguments[at]), at);
		check_module(module->start, module->start + module->size, text);
	}

	const struct range *map = (const struct range *)(u32)info->memory_map;
	CHECK_EQUAL(info->memory_map_count, 3);
	for (u32 at = 0; at < 3; at++) {
		CHECK_EQUAL(map[at].reserved, 0);
		check_range(at, map[at].start, map[at].len, map[at].kind, MEMORY);
	}
	check_acpi((const u8 *)(u32)info->rsdp);
	print("as promised\n");
}
