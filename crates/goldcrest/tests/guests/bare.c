/* A guest that is told of its machine by a device tree alone: a flat binary, or an ELF32 without a header. Its command
 * line is "one two". */
#include "guest.h"
#include "tree.h"

u32 marker = 0x5eed;

static void check_modules(void)
{
	static const char *const names[] = { "chosen/module@", 0 };
	static const char *const arguments[] = { "", "4096 9 a,b", "1 77" };
	u32 len, count = 0;
	const u8 *node = 0;

	while ((node = next_node(node, names[0]))) {
		const char *text = (const char *)property(node, "bootargs", &len);
		CHECK(text && equal(text, arguments[count]), count);
		CHECK(equal((const char *)property(node, "compatible", &len), "multiboot,module"), count);
		const u8 *reg = property(node, "reg", &len);
		CHECK_EQUAL(len, 16);
		check_module(big_endian(reg + 4), big_endian(reg + 4) + big_endian(reg + 12), text);
		if (!count) {
			const u8 *chosen = next_node(0, "chosen");
			const u8 *start = property(chosen, "linux,initrd-start", &len);
			CHECK_EQUAL(big_endian(start + 4), big_endian(reg + 4));
			const u8 *end = property(chosen, "linux,initrd-end", &len);
			CHECK_EQUAL(big_endian(end + 4), big_endian(reg + 4) + 5000);
		}
		count++;
	}
	CHECK_EQUAL(count, 3);
}

void check(void)
{
	u32 len;
	const u8 *node;

	CHECK_EQUAL(entry_state.eax, 0xd00dfeed);
	check_protected_mode();
	CHECK_EQUAL(marker, 0x5eed);
	tree = (const u8 *)entry_state.ebx;
	CHECK_EQUAL(big_endian(tree), 0xd00dfeed);

	node = next_node(0, "chosen");
	CHECK(node != 0, 0);
	CHECK(equal((const char *)property(node, "bootargs", &len), "one two"), len);
	CHECK(equal((const char *)property(node, "stdout-path", &len), "/isa/serial@i3f8"), len);
	check_modules();

	node = next_node(0, "memory@0");
	const u8 *reg = property(node, "reg", &len);
	CHECK_EQUAL(len, 16);
	CHECK_EQUAL(big_endian(reg + 4), 0);
	CHECK_EQUAL(big_endian(reg + 12), MEMORY);

	CHECK(next_node(0, "cpus/cpu@0") != 0, 0);
	CHECK(next_node(0, "cpus/cpu@1") != 0, 0);
	CHECK(next_node(0, "cpus/cpu@2") == 0, 0);

	node = next_node(0, "isa/serial@i3f8");
	reg = property(node, "reg", &len);
	CHECK(len == 12 && big_endian(reg) == 1 && big_endian(reg + 4) == 0x3f8, len);

	/* The disk, whose registers are there: its magic number is "virt". */
	node = next_node(0, "virtio@");
	reg = property(node, "reg", &len);
	CHECK_EQUAL(*(volatile u32 *)big_endian(reg + 4), 0x74726976);
	print("as promised\n");
}
