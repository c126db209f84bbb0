/* A test kernel to the interfaces that kvm-unit-tests uses: a Multiboot ELF32 on the devices of `--machine test`, with two
 * CPUs. Its command line begins with its file's name. */
#include "guest.h"

__asm__(".section .header, \"a\"\n"
	".long 0x1badb002, 0, -0x1badb002\n"
	".text");

/* As lib/x86/fwcfg.c reads it. */
static u64 fw_cfg(u16 key, u32 bytes)
{
	u64 value = 0;

	outw(0x510, key);
	for (u32 at = 0; at < bytes; at++)
		value |= (u64)inb(0x511) << (8 * at);
	return value;
}

static void check_ports(void)
{
	outl(0xe0, 0x11223344);
	CHECK_EQUAL(inl(0xe0), 0x11223344);
	CHECK_EQUAL(inl(0xe8), 0x11223344);
	outb(0xe9, 0xaa);
	CHECK_EQUAL(inw(0xe0), 0xaa44);
	outw(0xe2, 0x5566);
	CHECK_EQUAL(inl(0xe0), 0x5566aa44);
	CHECK_EQUAL(inb(0xe3), 0x55);
	/* A page is flushed; nothing is to be seen of it. */
	outl(0xe4, 0x200000);
	CHECK_EQUAL(inl(0xe0), 0x5566aa44);
}

static void check_memory(void)
{
	volatile u8 *bytes = (volatile u8 *)0xff000000;

	*(volatile u32 *)(bytes + 16) = 0xcafebabe;
	CHECK_EQUAL(bytes[17], 0xba);
	CHECK_EQUAL(*(volatile u16 *)(bytes + 18), 0xcafe);
	bytes[0xffff] = 7;
	CHECK_EQUAL(bytes[0xffff], 7);
	CHECK_EQUAL(bytes[0], 0);
}

/* The interrupt requests of the 8259 at this port. */
static u8 requests(u16 port)
{
	outb(port, 0x0a);
	return inb(port);
}

static const u16 ports[2] = { 0x20, 0xa0 };

/* Both controllers, edge-triggered, all masked; they forget what was requested. */
static void start_controllers(void)
{
	static const u8 words[2][4] = { { 0x11, 0x20, 4, 1 }, { 0x11, 0x28, 2, 1 } };

	for (u32 chip = 0; chip < 2; chip++) {
		outb(ports[chip], words[chip][0]);
		for (u32 word = 1; word < 4; word++)
			outb(ports[chip] + 1, words[chip][word]);
		outb(ports[chip] + 1, 0xff);
	}
}

static void check_lines(void)
{
	for (u32 line = 5; line < 16; line += 5) {
		u16 port = ports[line / 8];
		u8 bit = 1 << (line & 7);
		/* The second time there is an edge only if the line was lowered. */
		for (u32 time = 0; time < 2; time++) {
			start_controllers();
			CHECK_EQUAL(requests(port) & bit, 0);
			outb(0x2000 + line, 1);
			CHECK_EQUAL(requests(port) & bit, bit);
			outb(0x2000 + line, 0);
		}
	}
}

void check(void)
{
	const u32 *info = (const u32 *)entry_state.ebx;
	const char *rest = (const char *)info[4];

	CHECK_EQUAL(entry_state.eax, 0x2badb002);
	while (*rest && *rest != ' ')
		rest++;
	CHECK(rest > (const char *)info[4], info[4]);
	CHECK(equal(rest, " one two"), rest[0]);

	CHECK_EQUAL(fw_cfg(0, 4), 0x554d4551);
	CHECK_EQUAL(fw_cfg(1, 4), 1);
	CHECK_EQUAL((u32)fw_cfg(3, 8), MEMORY);
	CHECK_EQUAL(fw_cfg(5, 2), 2);
	CHECK_EQUAL(fw_cfg(15, 2), 2);
	check_ports();
	check_memory();
	check_lines();
	print("as promised\n");
}
