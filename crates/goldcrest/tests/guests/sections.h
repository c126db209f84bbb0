/* Finds a symbol by the section headers that a kernel is told. */

#ifdef ELF64
struct section {
	u32 name, kind;
	u64 flags, address, offset, size;
	u32 link, info;
	u64 align, entry_size;
};
struct symbol {
	u32 name;
	u8 info, other;
	u16 index;
	u64 value, size;
};
#else
struct section {
	u32 name, kind, flags, address, offset, size, link, info, align, entry_size;
};
struct symbol {
	u32 name, value, size;
	u8 info, other;
	u16 index;
};
#endif

/* The symbol `marker` has the address that it has. */
static void check_sections(const void *table, u32 count, u32 size, u32 names, const void *marker)
{
	const struct section *sections = table, *symbols = 0;

	CHECK_EQUAL(size, sizeof(struct section));
	CHECK(names < count, names);
	const char *section_names = (const char *)(u32)sections[names].address;
	for (u32 at = 0; at < count; at++)
		if (equal(section_names + sections[at].name, ".symtab"))
			symbols = &sections[at];
	CHECK(symbols != 0, count);
	CHECK(symbols->address != 0, symbols->size);

	const char *strings = (const char *)(u32)sections[symbols->link].address;
	const struct symbol *symbol = (const struct symbol *)(u32)symbols->address;
	for (u32 left = (u32)symbols->size / sizeof(*symbol); left; left--, symbol++) {
		if (equal(strings + symbol->name, "marker")) {
			CHECK_EQUAL((u32)symbol->value, (u32)marker);
			return;
		}
	}
	fail("a symbol named marker", count);
}
