/* A kernel that checks what Linux's Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", and zero-page.rst promise, and
 * finds its disk by the command line (Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device), as kernels that
 * were made for Firecracker do. Code of 64 bits with pointers of 32. Its command line is "one two". */
#include "guest.h"

extern struct {
	u64 rsi, rsp, rflags, cr0, cr4, efer;
	u16 cs, ds, es, ss;
} long_state;

#define BOOT_CS 0x10
#define BOOT_DS 0x18

struct range {
	u64 start, len;
	u32 kind;
} __attribute__((packed));

u32 zeroes[1000];

static u32 field(u32 offset)
{
	return *(const u32 *)((u32)long_state.rsi + offset);
}

static void check_long_mode(void)
{
	CHECK_EQUAL(long_state.cr0 & 0x80000001, 0x80000001);
	CHECK_EQUAL(long_state.cr4 >> 5 & 1, 1);
	CHECK_EQUAL(long_state.efer & 0x500, 0x500);
	CHECK_EQUAL(long_state.rflags & 1 << 9, 0);
	CHECK_EQUAL(long_state.cs, BOOT_CS);
	CHECK_EQUAL(long_state.ds, BOOT_DS);
	CHECK_EQUAL(long_state.es, BOOT_DS);
	CHECK_EQUAL(long_state.ss, BOOT_DS);
}

/* The kernel, boot_params and the command line are mapped one to one, and so is what lies behind. */
static void check_mapping(void)
{
	volatile u32 *last = (volatile u32 *)(MEMORY - 8);

	*last = 0x12345678;
	CHECK_EQUAL(*last, 0x12345678);
}

/* Maps registers, which nobody promised to do: the gigabyte from 3 GiB on, by pages of 2 MiB. */
static void map_registers(void)
{
	static u64 directory[512] __attribute__((aligned(4096)));
	u64 root;

	for (u32 at = 0; at < 512; at++)
		directory[at] = (0xc0000000u + at * 0x200000ull) | 0x83;
	__asm__ volatile("movq %%cr3, %0" : "=r"(root));
	u64 *pointers = (u64 *)((u32)*(u64 *)(u32)(root & ~0xfffull) & ~0xfffu);
	pointers[3] = (u32)directory | 3;
	__asm__ volatile("movq %0, %%cr3" : : "r"(root) : "memory");
}

static void check_initrd(void)
{
	u32 start = field(0x218), len = field(0x21c);

	CHECK_EQUAL(field(0x0c0), 0);
	CHECK_EQUAL(field(0x0c4), 0);
	CHECK_EQUAL(len, 5000);
	CHECK_EQUAL(start & 0xfff, 0);
	check_content((const u8 *)start, len, 1);
}

static void check_memory_map(void)
{
	const struct range *map = (const struct range *)((u32)long_state.rsi + 0x2d0);
	u32 count = *(const u8 *)((u32)long_state.rsi + 0x1e8);

	CHECK_EQUAL(count, 3);
	for (u32 at = 0; at < count; at++)
		check_range(at, map[at].start, map[at].len, map[at].kind, MEMORY);
}

/* A hexadecimal number behind "0x"; moves the text behind it. */
static u32 hexadecimal(const char **text)
{
	u32 value = 0;

	CHECK(bytes_equal(*text, "0x", 2), **text);
	for (*text += 2;; ++*text) {
		u8 digit = **text;
		if (digit >= '0' && digit <= '9')
			value = value << 4 | (digit - '0');
		else if (digit >= 'a' && digit <= 'f')
			value = value << 4 | (digit - 'a' + 10);
		else
			return value;
	}
}

static void check_disk(const char *device)
{
	static const char size[] = "virtio_mmio.device=4K@";

	CHECK(bytes_equal(device, size, sizeof size - 1), device[0]);
	device += sizeof size - 1;
	const volatile u32 *registers = (const volatile u32 *)hexadecimal(&device);
	CHECK_EQUAL(*device++, ':');
	u32 interrupt = number(&device);
	CHECK(interrupt >= 5 && interrupt < 24, interrupt);
	CHECK_EQUAL(*device, 0);
	/* MagicValue, Version, DeviceID, and the capacity in sectors. */
	CHECK_EQUAL(registers[0], 0x74726976);
	CHECK_EQUAL(registers[1], 2);
	CHECK_EQUAL(registers[2], 2);
	CHECK_EQUAL(registers[0x40], 8);
	CHECK_EQUAL(registers[0x41], 0);
}

void check(void)
{
	static const char words[] = "one two ";
	const char *cmdline = (const char *)field(0x228);

	check_long_mode();
	check_mapping();
	for (u32 at = 0; at < 1000; at++)
		CHECK_EQUAL(zeroes[at], 0);
	CHECK_EQUAL(field(0x1fe) & 0xffff, 0xaa55);
	CHECK_EQUAL(field(0x202), 0x53726448);
	/* A boot loader without a number, and a kernel that is loaded high. */
	CHECK_EQUAL(field(0x210) & 0x1ff, 0x1ff);
	CHECK_EQUAL(field(0x0c8), 0);
	CHECK(bytes_equal(cmdline, words, sizeof words - 1), cmdline[0]);
	map_registers();
	check_disk(cmdline + sizeof words - 1);
	check_initrd();
	check_memory_map();
	check_acpi((const u8 *)field(0x070));
	print("as promised\n");
}
