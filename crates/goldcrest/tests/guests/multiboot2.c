/* A Multiboot2 kernel that checks what Multiboot2 2.0 promises. Its command line is "one two".
 *
 * RELOCATABLE: it can lie elsewhere than it is linked at, and is then moved by so many bytes, as its own address tells.
 * KLUDGE: it is loaded as its address tag says. */
#include "guest.h"

#ifdef KLUDGE
#define ADDRESS_TAG ".short 2, 0; .long 24, header, -1, load_end, bss_end\n"
#define ENTRY_TAG ".short 3, 0; .long 12, start; .balign 8\n"
#else
#define ADDRESS_TAG
#define ENTRY_TAG
#endif

__asm__(".section .header, \"a\"\n"
	".balign 8\n"
	".globl header\n"
	"header: .long 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)\n"
	/* Required: command line, modules, memory, map, symbols, ACPI, and a framebuffer, if there is one. */
	".short 1, 0; .long 40, 1, 3, 4, 6, 9, 14, 15, 8; .balign 8\n"
	/* If it can be: a type that nobody has defined. */
	".short 1, 1; .long 12, 1000; .balign 8\n" ADDRESS_TAG ENTRY_TAG
	/* A framebuffer, if it can be; page-aligned modules; and a tag that nobody has defined, if it can be. */
	".short 5, 1; .long 20, 1024, 768, 32; .balign 8\n"
	".short 6, 0; .long 8\n"
	".short 500, 1; .long 9; .byte 1; .balign 8\n"
	".short 0, 0; .long 8\n"
	"header_end:\n"
	".text");

struct tag {
	u32 kind, size;
	union {
		u32 words[0];
		char text[0];
	};
};

u32 zeroes[1000];
u32 marker = 0x5eed;

#include "sections.h"

static void check_map(const struct tag *tag)
{
	u32 index = 0;

	CHECK_EQUAL(tag->words[0], 24);
	CHECK_EQUAL(tag->words[1], 0);
	for (const u8 *entry = (const u8 *)&tag->words[2]; entry < (const u8 *)tag + tag->size; entry += 24)
		check_range(index++, *(const u64 *)entry, *(const u64 *)(entry + 8),
			    *(const u32 *)(entry + 16), MEMORY);
	CHECK_EQUAL(index, 3);
}

static void check_tag(const struct tag *tag, u32 *modules)
{
	static const char *const arguments[] = { "", "4096 9 a,b", "1 77" };

	switch (tag->kind) {
	case 1:
		CHECK(equal(tag->text, "one two"), tag->text[0]);
		CHECK_EQUAL(tag->size, 16);
		break;
	case 2:
		CHECK(bytes_equal(tag->text, "Goldcrest ", 10), tag->text[0]);
		break;
	case 3:
		CHECK(*modules < 3, *modules);
		CHECK(equal(tag->text + 8, arguments[*modules]), *modules);
		check_module(tag->words[0], tag->words[1], tag->text + 8);
		++*modules;
		break;
	case 4:
		CHECK_EQUAL(tag->words[0], 639);
		CHECK_EQUAL(tag->words[1], MEMORY / 1024 - 1024);
		break;
	case 6:
		check_map(tag);
		break;
	case 9:
		check_sections(&tag->words[3], tag->words[0], tag->words[1], tag->words[2], &marker);
		break;
	case 14:
		CHECK_EQUAL(tag->size, 28);
		CHECK_EQUAL(tag->text[15], 0);
		check_acpi((const u8 *)tag->words);
		break;
	case 15:
		CHECK_EQUAL(tag->size, 44);
		CHECK_EQUAL(tag->text[15], 2);
		CHECK_EQUAL(sum(tag->words, 36), 0);
		check_acpi((const u8 *)tag->words);
		break;
	default:
		fail("a tag of this type", tag->kind);
	}
}

void check(void)
{
	const u8 *info = (const u8 *)entry_state.ebx;
	u32 size = *(const u32 *)info, modules = 0, seen = 0;
	const struct tag *tag = (const struct tag *)(info + 8);

	CHECK_EQUAL(entry_state.eax, 0x36d76289);
	check_protected_mode();
	for (u32 at = 0; at < 1000; at++)
		CHECK_EQUAL(zeroes[at], 0);
	CHECK_EQUAL(marker, 0x5eed);

	CHECK_EQUAL((u32)info & 7, 0);
	CHECK_EQUAL(*(const u32 *)(info + 4), 0);
	while (tag->kind) {
		check_tag(tag, &modules);
		seen |= 1 << tag->kind;
		tag = (const struct tag *)((const u8 *)tag + ((tag->size + 7) & ~7));
		CHECK((const u8 *)tag < info + size, tag);
	}
	CHECK_EQUAL(tag->size, 8);
	CHECK_EQUAL((const u8 *)tag + 8 - info, size);
	CHECK_EQUAL(modules, 3);
#ifdef KLUDGE
	CHECK_EQUAL(seen, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 14 | 1 << 15);
#else
	CHECK_EQUAL(seen, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 9 | 1 << 14 | 1 << 15);
#endif
	print("as promised\n");
}
