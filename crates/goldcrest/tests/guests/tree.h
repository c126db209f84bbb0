/* Reads a flattened device tree. */

static const u8 *tree;

static u32 big_endian(const u8 *bytes)
{
	return (u32)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

static u32 aligned(u32 value)
{
	return (value + 3) & ~3;
}

static u32 length(const char *text)
{
	u32 len = 0;

	while (text[len])
		len++;
	return len;
}

static int begins(const char *text, const char *with)
{
	for (; *with; text++, with++)
		if (*text != *with)
			return 0;
	return 1;
}

/* The first node behind `after` (from the root: 0) whose path below the root begins with `path`: where its name is. */
static const u8 *next_node(const u8 *after, const char *path)
{
	const u8 *at = tree + big_endian(tree + 8);
	char full[256];
	u32 depth = 0, ends[16] = { 0 };

	for (;;) {
		u32 token = big_endian(at);
		at += 4;
		switch (token) {
		case 1: {
			const char *name = (const char *)at;
			u32 len = depth ? ends[depth - 1] : 0;
			if (len)
				full[len++] = '/';
			for (u32 index = 0; name[index]; index++)
				full[len++] = name[index];
			full[len] = 0;
			CHECK(depth < 16, depth);
			ends[depth++] = len;
			if (at > after && len && begins(full, path))
				return at;
			at += aligned(length(name) + 1);
			break;
		}
		case 2:
			depth--;
			break;
		case 3:
			at += 8 + aligned(big_endian(at));
			break;
		case 4:
			break;
		default:
			return 0;
		}
	}
}

/* A property of a node, and its length; 0 if there is none. */
static const u8 *property(const u8 *node, const char *name, u32 *len)
{
	const char *strings = (const char *)tree + big_endian(tree + 12);

	CHECK(node != 0, 0);
	node += aligned(length((const char *)node) + 1);
	while (big_endian(node) == 3) {
		*len = big_endian(node + 4);
		if (equal(strings + big_endian(node + 8), name))
			return node + 12;
		node += 12 + aligned(*len);
	}
	return 0;
}
