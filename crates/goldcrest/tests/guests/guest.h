/* What guests that check their protocol have in common: 32-bit code without a library.
 *
 * A guest ends with 0x10 at the debug-exit port if all is as promised, else with 1, having printed on the first serial
 * port what was not. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

static inline void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(u16 port, u16 value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u16 inw(u16 port)
{
	u16 value;
	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u32 inl(u16 port)
{
	u32 value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void print(const char *text)
{
	for (; *text; text++)
		outb(0x3f8, *text);
}

static inline void print_number(u32 value)
{
	for (int shift = 28; shift >= 0; shift -= 4)
		outb(0x3f8, "0123456789abcdef"[value >> shift & 15]);
}

static inline void fail(const char *what, u32 found)
{
	print("not as promised: ");
	print(what);
	print(", found 0x");
	print_number(found);
	print("\n");
	for (;;)
		outl(0xf4, 1);
}

#define STRING(x) #x
#define LINE(x) STRING(x)
/* Fails unless `condition`; says `found`. */
#define CHECK(condition, found)                                                                    \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(__FILE_NAME__ ":" LINE(__LINE__) ": " #condition, (u32)(found));      \
	} while (0)
#define CHECK_EQUAL(found, expected) CHECK((found) == (expected), found)

static inline int equal(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return *a == *b;
}

static inline int bytes_equal(const void *a, const void *b, u32 len)
{
	const u8 *left = a, *right = b;

	for (; len; len--)
		if (*left++ != *right++)
			return 0;
	return 1;
}

static inline u8 sum(const void *bytes, u32 len)
{
	u8 total = 0;

	for (const u8 *byte = bytes; len; len--)
		total += *byte++;
	return total;
}

/* A number in decimal; moves the text behind it and the space that follows. */
static inline u32 number(const char **text)
{
	u32 value = 0;

	for (; **text >= '0' && **text <= '9'; ++*text)
		value = value * 10 + (**text - '0');
	if (**text == ' ')
		++*text;
	return value;
}

/* The content of a module that was made for a test: so many bytes, from a seed on. */
static inline void check_content(const u8 *bytes, u32 len, u32 seed)
{
	for (u32 at = 0; at < len; at++)
		CHECK(bytes[at] == (u8)(seed + at * 7), at);
}

/* A module and its arguments, which are "LENGTH SEED" in decimal; empty ones are those of the initrd, 5000 bytes of 1. */
static inline void check_module(u32 start, u32 end, const char *arguments)
{
	const char *rest = *arguments ? arguments : "5000 1";
	u32 len = number(&rest), seed = number(&rest);

	CHECK_EQUAL(start & 0xfff, 0);
	CHECK_EQUAL(end - start, len);
	check_content((const u8 *)start, len, seed);
}

/* What a PC with so many bytes of memory below 3 GiB has, one range at a time. */
static inline void check_range(u32 index, u64 start, u64 len, u32 kind, u32 memory)
{
	switch (index) {
	case 0:
		CHECK(start == 0 && len == 0x9fc00 && kind == 1, len);
		break;
	case 1:
		CHECK(start == 0x9fc00 && len == 0x60400 && kind == 2, len);
		break;
	case 2:
		CHECK(start == 0x100000 && len == memory - 0x100000 && kind == 1, len);
		break;
	default:
		fail("a range too many", index);
	}
}

#define MEMORY (64u << 20)

/* As entry32.S kept it. */
struct entry_state {
	u32 eax, ebx, esi, edi, eflags, cr0, cr4;
	u16 cs, ss;
};
extern struct entry_state entry_state;
extern u32 through_segments[6], written[4];

/* 32-bit protected mode as Multiboot, PVH and our flat entry have it. */
static inline void check_protected_mode(void)
{
	CHECK_EQUAL(entry_state.cr0 & 1, 1);
	CHECK_EQUAL(entry_state.cr0 >> 31, 0);
	CHECK_EQUAL(entry_state.cr4, 0);
	CHECK_EQUAL(entry_state.eflags & (1 << 9 | 1 << 17), 0);
	for (u32 at = 0; at < 6; at++)
		CHECK_EQUAL(through_segments[at] & 0xf0, 0x10);
	for (u32 at = 0; at < 4; at++)
		CHECK_EQUAL(written[at], 0x11111111);
	/* A20: 1 MiB apart is not the same. Something may lie there, and is left as it was. */
	volatile u32 *low = (volatile u32 *)0x8000, *high = (volatile u32 *)0x108000;
	u32 in_low = *low, in_high = *high;
	*low = 0x12345678;
	*high = 0x87654321;
	u32 found = *low;
	*low = in_low;
	*high = in_high;
	CHECK_EQUAL(found, 0x12345678);
}

/* ACPI from either root pointer: its tables sum to zero. */
static inline void check_acpi(const u8 *rsdp)
{
	CHECK(bytes_equal(rsdp, "RSD PTR ", 8), rsdp[0]);
	CHECK_EQUAL(sum(rsdp, 20), 0);
	const u32 *rsdt = (const u32 *)*(const u32 *)(rsdp + 16);
	CHECK(bytes_equal(rsdt, "RSDT", 4), rsdt[0]);
	CHECK_EQUAL(sum(rsdt, rsdt[1]), 0);
	u32 count = (rsdt[1] - 36) / 4;
	CHECK_EQUAL(count, 2);
	for (u32 at = 0; at < count; at++) {
		const u32 *table = (const u32 *)rsdt[9 + at];
		CHECK_EQUAL(sum(table, table[1]), 0);
	}
}

void check(void);
