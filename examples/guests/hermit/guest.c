/* A Hermit guest for tests: it does what its first argument says, and ends with status 0 if all was as it must be; else
 * it says what is not, and ends with 1. It is written to the interfaces of the crates hermit-entry (entry version 4) and
 * uhyve-interface (version 1), without Hermit's own code, and in plain instructions only: some hosts emulate them. */
#include <stddef.h>
#include <stdint.h>

/* Notes: a Hermit image of entry version 4, for version 1 of uhyve's interface, of Hermit 0.11.0. */
__asm__(".section .note.hermit.all, \"a\", @note\n"
        ".balign 4\n"
        ".long 7, 1, 0x5a00\n.asciz \"HERMIT\"\n.balign 4\n.byte 4\n.balign 4\n"
        ".long 8, 4, 0x5b00\n.asciz \"UHYVEIF\"\n.balign 4\n.byte 0, 0, 0, 1\n"
        ".long 4, 16, 1\n.asciz \"GNU\"\n.balign 4\n.long 6, 0, 11, 0\n"
        ".text\n");

struct boot_info {
    uint64_t memory_start, memory_end;
    uint16_t serial_port;
    uint64_t device_tree;
    uint64_t image_start, image_end;
    struct { uint64_t start, file_size, memory_size, align; } tls;
    uint32_t platform;
    struct {
        uint8_t has_pci;
        uint64_t num_cpus;
        uint32_t cpu_freq;
        uint64_t boot_time[2];
    } uhyve;
};

enum { FILE_WRITE = 0x400, FILE_OPEN = 0x440, FILE_CLOSE = 0x480, FILE_READ = 0x500, EXIT = 0x540, FILE_LSEEK = 0x580,
       CMDSIZE = 0x740, CMDVAL = 0x780, UART = 0x800, FILE_UNLINK = 0x840, SERIAL_WRITE_BUFFER = 0x880 };

#define PACKED __attribute__((packed))
struct PACKED write { int32_t fd; uint64_t buf, len; };
struct PACKED open { uint64_t name; int32_t flags, mode, ret; };
struct PACKED close { int32_t fd, ret; };
struct PACKED read { int32_t fd; uint64_t buf, len; int64_t ret; };
struct PACKED lseek { int32_t fd; int64_t offset; int32_t whence; };
struct PACKED unlink { uint64_t name; int32_t ret; };
struct PACKED cmdsize { int32_t argc, argsz[128], envc, envsz[128]; };
struct PACKED cmdval { uint64_t argv, envp; };
struct PACKED buffer { uint64_t buf, len; };

/* What the registers were at the first instruction. */
struct { uint64_t rsp, rdi, rsi; } at_entry;

__asm__(".text\n"
        ".globl _start\n"
        "_start:\n"
        "  mov %rsp, at_entry(%rip)\n"
        "  mov %rdi, at_entry+8(%rip)\n"
        "  mov %rsi, at_entry+16(%rip)\n"
        "  call start\n");

static void hypercall(uint16_t port, volatile void *argument)
{
    __asm__ volatile("outl %0, %1" : : "a"((uint32_t)(uintptr_t)argument), "d"(port) : "memory");
}

static void print_bytes(const void *data, uint64_t len)
{
    struct buffer call = { (uintptr_t)data, len };
    hypercall(SERIAL_WRITE_BUFFER, &call);
}

static uint64_t length(const char *text)
{
    uint64_t len = 0;
    while (text[len])
        len++;
    return len;
}

static void print(const char *text)
{
    print_bytes(text, length(text));
}

__attribute__((noreturn)) static void end(int32_t status)
{
    hypercall(EXIT, &status);
    for (;;)
        __asm__ volatile("hlt");
}

/* What must hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print("not so: " #condition "\n");                                                                         \
            end(1);                                                                                                    \
        }                                                                                                              \
    } while (0)

void *memset(void *to, int byte, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = byte;
    return to;
}

static int is(const char *text, const char *word)
{
    while (*word && *text == *word)
        text++, word++;
    return *text == *word;
}

/* What is relocated: addresses, and one of what is not there. */
static const char *volatile words[] = { "relocated", "addresses", "work" };
extern const char missing[] __attribute__((weak));
static const char *volatile nowhere = missing;
__attribute__((used)) static __thread uint64_t own = 0x1122334455667788;
extern uint8_t _end[];

static char strings[4096];
static uint64_t argv[128];
static int32_t argc;

static void get_arguments(void)
{
    static struct cmdsize sizes;
    uint64_t at = 0;
    memset(&sizes, 0xff, sizeof sizes);
    hypercall(CMDSIZE, &sizes);
    argc = sizes.argc;
    CHECK(argc >= 1 && argc <= 128 && sizes.envc == 0);
    for (int i = 0; i < argc; i++) {
        argv[i] = (uintptr_t)strings + at;
        at += sizes.argsz[i];
        CHECK(sizes.argsz[i] > 0 && at <= sizeof strings);
    }
    struct cmdval values = { (uintptr_t)argv, 0 };
    hypercall(CMDVAL, &values);
    for (int i = 0; i < argc; i++)
        CHECK(length((const char *)argv[i]) + 1 == (uint64_t)sizes.argsz[i]);
}

static uint32_t big_endian(uint64_t at)
{
    const uint8_t *byte = (const uint8_t *)at;
    return (uint32_t)byte[0] << 24 | byte[1] << 16 | byte[2] << 8 | byte[3];
}

static void check_start(const struct boot_info *info)
{
    uint64_t cr0, cr3, cr4;
    __asm__ volatile("mov %%cr0, %0\n\tmov %%cr3, %1\n\tmov %%cr4, %2" : "=r"(cr0), "=r"(cr3), "=r"(cr4));
    CHECK(at_entry.rdi == 0x9000 && at_entry.rsi == 0);
    CHECK(at_entry.rsp == info->image_start - 0x8000);
    CHECK((cr0 & ~0x10UL) == 0x80000021);
    CHECK((cr3 & ~0xfffUL) == 0x10000);
    CHECK(cr4 == 0x20);
    CHECK(info->memory_start == 0 && info->memory_end >= 0x200000);
    CHECK(info->serial_port == 0x800);
    CHECK(info->image_start == 0x40000 && info->image_end == (uintptr_t)_end);
    CHECK(info->tls.file_size == 8 && info->tls.memory_size == 8 && info->tls.align == 8);
    CHECK(*(uint64_t *)info->tls.start == 0x1122334455667788);
    CHECK(info->platform == 1 && !info->uhyve.has_pci && info->uhyve.num_cpus == 1);
    CHECK(info->uhyve.cpu_freq > 1000);
    CHECK(info->uhyve.boot_time[0] > 1600000000000000000 && !info->uhyve.boot_time[1]);
    CHECK(info->device_tree == 0x5000 && big_endian(0x5000) == 0xd00dfeed);
    /* The root of the page tables leads to itself, and to memory that can be written and executed. */
    const uint64_t *root = (const uint64_t *)0xfffffffffffff000;
    CHECK((root[511] & ~0xfe0UL) == (0x10000 | 3));
    volatile uint8_t *code = (volatile uint8_t *)(uintptr_t)(info->image_end + 64);
    *code = 0xc3;
    ((void (*)(void))(uintptr_t)code)();
}

static void check_relocations(void)
{
    CHECK(is(words[0], "relocated") && is(words[1], "addresses") && is(words[2], "work"));
    CHECK(nowhere == NULL);
}

static void check_files(void)
{
    struct open open = { (uintptr_t)"/etc/passwd", 0, 0, 1 };
    hypercall(FILE_OPEN, &open);
    CHECK(open.ret < 0);
    struct unlink unlink = { (uintptr_t)"/etc/passwd", 1 };
    hypercall(FILE_UNLINK, &unlink);
    CHECK(unlink.ret < 0);
    for (int fd = 0; fd < 16; fd++) {
        struct read read = { fd, (uintptr_t)strings, 1, 1 };
        hypercall(FILE_READ, &read);
        CHECK(read.ret < 0);
        struct lseek lseek = { fd, 0, 0 };
        hypercall(FILE_LSEEK, &lseek);
        CHECK(lseek.offset < 0);
        struct close close = { fd, 1 };
        hypercall(FILE_CLOSE, &close);
        CHECK(close.ret < 0);
        struct write write = { fd, (uintptr_t)"to a file\n", 10 };
        if (fd != 1 && fd != 2)
            hypercall(FILE_WRITE, &write);
    }
}

__attribute__((noreturn, used)) static void start(const struct boot_info *info)
{
    get_arguments();
    const char *what = argc > 1 ? (const char *)argv[1] : "hello";
    if (is(what, "hello")) {
        for (int i = 1; i < argc; i++) {
            print((const char *)argv[i]);
            __asm__ volatile("outb %0, %1" : : "a"((uint8_t)'\n'), "d"((uint16_t)UART));
        }
        struct write write = { 1, (uintptr_t)"to standard output\n", 19 };
        hypercall(FILE_WRITE, &write);
    } else if (is(what, "check")) {
        check_start(info);
        check_relocations();
        check_files();
        print("all is well\n");
    } else if (is(what, "exit")) {
        end(argc > 2 ? *(const char *)argv[2] - '0' : -1);
    } else if (is(what, "bad-pointer")) {
        print_bytes((const void *)info->memory_end, 1);
    } else if (is(what, "bad-address")) {
        struct write write = { 1, 1UL << 40, 1 };
        hypercall(FILE_WRITE, &write);
    } else {
        end(2);
    }
    end(0);
}
