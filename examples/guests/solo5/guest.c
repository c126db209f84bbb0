/* A Solo5 guest for tests: it does what the first word of its command line says, and ends with status 0 if all was as
 * it must be; else it says what is not, and ends with 1. It is written to Solo5's public interface, without Solo5's
 * own code, and in plain instructions only: some hosts emulate them. */
#include "abi.h"

__attribute__((section(".interp"), used)) static const char interp[] = "/nonexistent/solo5/";

__attribute__((section(".note.solo5.abi"), used, aligned(4))) static const struct abi_note abi_note = {
    { 6, sizeof abi_note - sizeof abi_note.h, 0x31494241, "Solo5" }, 1, 2, { 0, 0 },
};

__attribute__((section(".note.solo5.manifest"), used, aligned(8))) static const struct manifest_note manifest_note = {
    { 6, sizeof manifest_note - sizeof manifest_note.h, 0x3154464d, "Solo5" },
    { 1, ENTRIES, { { .type = RESERVED_FIRST }, DEVICES } },
};

/* What the registers were at the first instruction. */
struct {
    uint64_t rsp, rflags, others, rdi, cs, ss, ds, es, fs, gs;
} at_entry;

__asm__(".text\n"
        ".globl _start\n"
        "_start:\n"
        "  mov %rsp, at_entry(%rip)\n"
        "  pushfq\n"
        "  popq at_entry+8(%rip)\n"
        "  or %rbx, %rax\n  or %rcx, %rax\n  or %rdx, %rax\n  or %rsi, %rax\n  or %rbp, %rax\n"
        "  or %r8, %rax\n  or %r9, %rax\n  or %r10, %rax\n  or %r11, %rax\n"
        "  or %r12, %rax\n  or %r13, %rax\n  or %r14, %rax\n  or %r15, %rax\n"
        "  mov %rax, at_entry+16(%rip)\n"
        "  mov %rdi, at_entry+24(%rip)\n"
        "  mov %cs, %eax\n  mov %rax, at_entry+32(%rip)\n"
        "  mov %ss, %eax\n  mov %rax, at_entry+40(%rip)\n"
        "  mov %ds, %eax\n  mov %rax, at_entry+48(%rip)\n"
        "  mov %es, %eax\n  mov %rax, at_entry+56(%rip)\n"
        "  mov %fs, %eax\n  mov %rax, at_entry+64(%rip)\n"
        "  mov %gs, %eax\n  mov %rax, at_entry+72(%rip)\n"
        /* The stack is as after a call. */
        "  jmp start\n");

static const struct boot_info *info;

/* Output, time, end. */

static void print_bytes(const void *data, uint64_t len)
{
    struct puts call = { (uintptr_t)data, len };
    hypercall(PUTS, &call);
}

static void print(const char *text)
{
    uint64_t len = 0;
    while (text[len])
        len++;
    print_bytes(text, len);
}

static void print_number(uint64_t number)
{
    char digits[21];
    int at = sizeof digits;
    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    print_bytes(digits + at, sizeof digits - at);
}

static void print_named(const char *name, uint64_t number)
{
    print(name);
    print("=");
    print_number(number);
    print("\n");
}

__attribute__((noreturn)) static void halt(int status, void *cookie)
{
    struct halt call = { (uintptr_t)cookie, status };
    hypercall(HALT, &call);
    for (;;)
        __asm__ volatile("hlt");
}

/* What must hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print("not so: " #condition "\n");                                                                         \
            halt(1, NULL);                                                                                             \
        }                                                                                                              \
    } while (0)

static uint64_t walltime(void)
{
    struct walltime call = { 0 };
    hypercall(WALLTIME, &call);
    return call.nsecs;
}

static uint64_t cycles(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* Strings and bytes. */

void *memset(void *to, int byte, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = byte;
    return to;
}

static int same(const void *a, const void *b, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i])
            return 0;
    return 1;
}

static int is_word(const char *text, const char *word)
{
    while (*word && *text == *word)
        text++, word++;
    return !*word && (!*text || *text == ' ');
}

/* The number behind the first word. */
static uint64_t number(const char *text)
{
    uint64_t value = 0;
    while (*text && *text != ' ')
        text++;
    while (*text == ' ')
        text++;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + *text - '0';
    return value;
}

/* Devices. */

static uint64_t handle_of(const char *name)
{
    for (uint64_t i = 1; i < info->mft->entries; i++)
        if (is_word(info->mft->e[i].name, name))
            return i;
    CHECK(!"the device is in the manifest");
    return 0;
}

static int block(int which, uint64_t handle, uint64_t offset, void *data, uint64_t len)
{
    struct block call = { handle, offset, (uintptr_t)data, len, -1 };
    hypercall(which, &call);
    return call.ret;
}

static int net_write(uint64_t handle, const void *data, uint64_t len)
{
    struct net call = { handle, (uintptr_t)data, len, -1 };
    hypercall(NET_WRITE, &call);
    return call.ret;
}

static int net_read(uint64_t handle, void *data, uint64_t *len)
{
    struct net call = { handle, (uintptr_t)data, *len, -1 };
    hypercall(NET_READ, &call);
    *len = call.len;
    return call.ret;
}

static uint64_t poll(uint64_t nanoseconds)
{
    struct poll call = { nanoseconds, ~0UL, -1 };
    hypercall(POLL, &call);
    uint64_t count = 0;
    for (uint64_t set = call.ready_set; set; set &= set - 1)
        count++;
    CHECK((uint64_t)call.ret == count);
    return call.ready_set;
}

/* Faults: tables of one's own, and a handler that goes on elsewhere. */

static uint64_t gdt[3] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
static uint64_t idt[2 * 32] __attribute__((aligned(16)));
struct table { uint16_t limit; uint64_t base; } __attribute__((packed));
uint64_t fault[3]; /* error code, cr2, and whether there was one */
uint64_t fault_stack, fault_resume;

__asm__(".text\n"
        "page_fault:\n"
        "  popq fault(%rip)\n"
        "  mov %cr2, %rax\n"
        "  mov %rax, fault+8(%rip)\n"
        "  movq $1, fault+16(%rip)\n"
        "  mov fault_stack(%rip), %rsp\n"
        "  jmp *fault_resume(%rip)\n"
        /* fault_at(address, how): reads (0), writes (1) or calls (2) an address. */
        "fault_at:\n"
        "  push %rbx\n  push %rbp\n"
        "  mov %rsp, fault_stack(%rip)\n"
        "  lea 1f(%rip), %rax\n"
        "  mov %rax, fault_resume(%rip)\n"
        "  movq $0, fault+16(%rip)\n"
        "  cmp $1, %esi\n"
        "  je 2f\n"
        "  ja 3f\n"
        "  mov (%rdi), %al\n"
        "  jmp 1f\n"
        "2: movb $0xc3, (%rdi)\n"
        "  jmp 1f\n"
        "3: call *%rdi\n"
        "1: pop %rbp\n  pop %rbx\n"
        "  ret\n");
extern const char page_fault[];
void fault_at(uint64_t address, int how);

static void catch_faults(void)
{
    uint64_t handler = (uintptr_t)page_fault;
    idt[2 * 14] = (handler & 0xffff) | 8UL << 16 | 0x8eUL << 40 | (handler >> 16 & 0xffff) << 48;
    idt[2 * 14 + 1] = handler >> 32;
    struct table gdtr = { sizeof gdt - 1, (uintptr_t)gdt }, idtr = { sizeof idt - 1, (uintptr_t)idt };
    __asm__ volatile("lgdt %0\n\tlidt %1" : : "m"(gdtr), "m"(idtr));
}

/* The error code of the fault of an access, or -1 if there is none. */
static int64_t faults(uint64_t address, int how)
{
    fault_at(address, how);
    if (!fault[2])
        return -1;
    CHECK(fault[1] == address);
    return fault[0];
}

enum { READ, WRITE, CALL };
/* Error codes: bit 0 says that the page is there, bit 1 that it was written, bit 4 that it was executed. */
enum { ABSENT = 0, WRITE_PROTECTED = 3, NO_EXECUTE = 0x11 };

static const uint8_t constant[16] = { 0xc3 };
static uint8_t variable[16] = { 0xc3 };
extern uint8_t _end[];
__attribute__((noinline)) static void function(void) { __asm__ volatile(""); }

static void check_pages(void)
{
    catch_faults();
    uint64_t heap = info->kernel_end, stack = info->mem_size - 8;
    CHECK(faults((uintptr_t)function, CALL) == -1);
    CHECK(faults((uintptr_t)function, READ) == -1);
    CHECK(faults((uintptr_t)function, WRITE) == WRITE_PROTECTED);
    CHECK(faults((uintptr_t)constant, READ) == -1);
    CHECK(faults((uintptr_t)constant, WRITE) == WRITE_PROTECTED);
    CHECK(faults((uintptr_t)constant, CALL) == NO_EXECUTE);
    CHECK(faults((uintptr_t)variable, WRITE) == -1);
    CHECK(faults((uintptr_t)variable, CALL) == NO_EXECUTE);
    CHECK(faults(heap, WRITE) == -1);
    CHECK(faults(heap, CALL) == NO_EXECUTE);
    CHECK(faults(stack, WRITE) == -1);
    CHECK(faults(stack, CALL) == NO_EXECUTE);
    /* Low memory: nothing, the host's tables, then what the host tells. */
    for (uint64_t page = 0; page < 0x10000; page += 0x1000)
        CHECK(faults(page, READ) == ABSENT);
    CHECK(faults(0x10000, READ) == -1);
    CHECK(faults(0x10000, WRITE) == WRITE_PROTECTED);
    CHECK(faults(0x10000, CALL) == NO_EXECUTE);
    CHECK(faults(0xff000, WRITE) == WRITE_PROTECTED);
    CHECK(faults(info->mem_size, READ) == ABSENT);
}

static void check_entry(void)
{
    uint64_t cr0, cr3, cr4, flags = at_entry.rflags;
    uint16_t tr, ldt;
    struct table gdtr, idtr;
    __asm__ volatile("mov %%cr0, %0\n\tmov %%cr3, %1\n\tmov %%cr4, %2" : "=r"(cr0), "=r"(cr3), "=r"(cr4));
    __asm__ volatile("sgdt %0\n\tsidt %1\n\tstr %2\n\tsldt %3" : "=m"(gdtr), "=m"(idtr), "=r"(tr), "=r"(ldt));
    CHECK(at_entry.rdi == 0x10000);
    CHECK(at_entry.rsp == info->mem_size - 8);
    CHECK(at_entry.others == 0);
    CHECK(flags == 2);
    CHECK(at_entry.cs == 0x08 && at_entry.ss == 0x10);
    CHECK(at_entry.ds == 0x10 && at_entry.es == 0x10 && at_entry.fs == 0x10 && at_entry.gs == 0x10);
    CHECK((cr0 & ~0x10UL) == 0x80010021);
    CHECK((cr3 & ~0xfffUL) == 0x2000);
    CHECK(cr4 == 0x620);
    CHECK(gdtr.base == 0x1000 && gdtr.limit == 23);
    CHECK(idtr.limit == 0);
    CHECK(tr == 0 && ldt == 0);
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xc0000080));
    CHECK((low & 0x500) == 0x500);

    CHECK(info->mem_size % 0x200000 == 0);
    CHECK(info->kernel_end == (uintptr_t)_end);
    CHECK(info->cpu_cycle_freq > 1000000);
    uint64_t place = (uintptr_t)info->mft;
    CHECK(place % 8 == 0 && place >= 0x10000 && place < 0x100000);
    place = (uintptr_t)info->cmdline;
    CHECK(place >= 0x10000 && place < 0x100000 - 8192);
    const struct manifest *mft = info->mft;
    CHECK(mft->version == 1 && mft->entries == ENTRIES);
    CHECK(mft->e[0].type == RESERVED_FIRST && !mft->e[0].name[0] && !mft->e[0].attached);
    for (uint64_t i = 1; i < ENTRIES; i++) {
        CHECK(same(mft->e[i].name, manifest_note.m.e[i].name, 68));
        CHECK(mft->e[i].type == manifest_note.m.e[i].type);
        CHECK(mft->e[i].attached == 1);
        CHECK(mft->e[i].backing == 0);
        if (mft->e[i].type == BLOCK_BASIC)
            CHECK(mft->e[i].u.block.block_size == 512 && mft->e[i].u.block.capacity % 512 == 0);
        else
            CHECK((mft->e[i].u.net.mac[0] & 1) == 0 && mft->e[i].u.net.mtu >= 68);
    }
    print_named("mem_size", info->mem_size);
    for (uint64_t i = 1; i < ENTRIES; i++) {
        print(mft->e[i].name);
        if (mft->e[i].type == BLOCK_BASIC)
            print_named(": capacity", mft->e[i].u.block.capacity);
        else
            print_named(": mtu", mft->e[i].u.net.mtu);
    }
}

/* Polls for so long; the time must be that, by the host's clock and by the processor's. */
static void check_time(uint64_t nanoseconds)
{
    uint64_t wall = walltime(), clock = cycles();
    CHECK(poll(nanoseconds) == 0);
    clock = cycles() - clock;
    wall = walltime() - wall;
    CHECK(wall >= nanoseconds);
    uint64_t by_clock = clock / (info->cpu_cycle_freq / 1000000) * 1000;
    CHECK(by_clock >= nanoseconds - nanoseconds / 10);
    print_named("time", walltime());
    print_named("took", wall);
    CHECK(poll(0) == 0);
}

static uint8_t buffer[65536], other[65536];

static void check_block(void)
{
    uint64_t disk = handle_of("storage"), size = info->mft->e[disk].u.block.capacity;
    CHECK(block(BLOCK_READ, disk, 0, buffer, 512) == OK);
    print("first block: ");
    print_bytes(buffer, 16);
    print("\n");
    for (int i = 0; i < 4096; i++)
        buffer[i] = i * 7 + i / 512;
    CHECK(block(BLOCK_WRITE, disk, 512, buffer, 512) == OK);
    CHECK(block(BLOCK_WRITE, disk, size - 4096, buffer, 4096) == OK);
    CHECK(block(BLOCK_READ, disk, 512, other, 512) == OK && same(buffer, other, 512));
    CHECK(block(BLOCK_READ, disk, size - 4096, other, 4096) == OK && same(buffer, other, 4096));
    for (int which = BLOCK_WRITE; which <= BLOCK_READ; which++) {
        CHECK(block(which, disk, size, buffer, 512) == EINVAL);
        CHECK(block(which, disk, size - 512, buffer, 1024) == EINVAL);
        CHECK(block(which, disk, ~0UL - 511, buffer, 512) == EINVAL);
        CHECK(block(which, disk, 1, buffer, 512) == EINVAL);
        CHECK(block(which, disk, 0, buffer, 100) == EINVAL);
        CHECK(block(which, 0, 0, buffer, 512) == EINVAL);
        CHECK(block(which, 64, 0, buffer, 512) == EINVAL);
        CHECK(block(which, handle_of("service"), 0, buffer, 512) == EINVAL);
    }
}

static void put(uint8_t *to, const char *bytes, int len)
{
    for (int i = 0; i < len; i++)
        to[i] = bytes[i];
}

/* Asks the network where its gateway is. */
static void check_net(const char *name)
{
    uint64_t card = handle_of(name), len = sizeof other;
    const uint8_t *mac = info->mft->e[card].u.net.mac;
    int ret;
    /* There may be some for everybody. */
    while ((ret = net_read(card, other, &len)) == OK)
        len = sizeof other;
    CHECK(ret == AGAIN && len == sizeof other);
    memset(buffer, 0, 60);
    memset(buffer, 0xff, 6);
    put(buffer + 6, (const char *)mac, 6);
    put(buffer + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
    put(buffer + 22, (const char *)mac, 6);
    put(buffer + 28, "\x0a\x00\x02\x0f", 4);
    put(buffer + 38, "\x0a\x00\x02\x02", 4);
    CHECK(net_write(card, buffer, 60) == OK);
    do {
        CHECK(poll(10000000000) & 1UL << card);
        len = sizeof other;
        CHECK(net_read(card, other, &len) == OK);
    } while (!same(other + 12, "\x08\x06", 2));
    CHECK(len >= 42 && same(other, mac, 6) && same(other + 20, "\x00\x02", 2));
    CHECK(same(other + 28, "\x0a\x00\x02\x02", 4));
    uint64_t mtu = info->mft->e[card].u.net.mtu;
    CHECK(net_write(card, buffer, mtu + 14) == OK);
    CHECK(net_write(card, buffer, mtu + 15) == EINVAL);
    CHECK(net_write(card, buffer, 13) == EINVAL);
    CHECK(net_write(0, buffer, 60) == EINVAL);
    print("gateway found by ");
    print(name);
    print("\n");
}

static void swap(uint8_t *a, uint8_t *b, int len)
{
    for (int i = 0; i < len; i++) {
        uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* Sends so many datagrams (UDP over IPv4) back to whom they came from. Their checksums stay what they are. */
static void echo(uint64_t count)
{
    uint64_t card = handle_of("service"), most = info->mft->e[card].u.net.mtu + 14;
    print_named("mtu", most - 14);
    while (count) {
        uint64_t len = most;
        CHECK(poll(20000000000) == 1UL << card);
        CHECK(net_read(card, buffer, &len) == OK);
        if (!same(buffer + 12, "\x08\x00\x45", 3) || buffer[23] != 17)
            continue;
        swap(buffer, buffer + 6, 6);
        swap(buffer + 26, buffer + 30, 4);
        swap(buffer + 34, buffer + 36, 2);
        CHECK(net_write(card, buffer, len) == OK);
        count--;
    }
}

__attribute__((noreturn, used)) static void start(const struct boot_info *boot_info)
{
    info = boot_info;
    const char *line = info->cmdline;
    if (is_word(line, "hello")) {
        print("hello: ");
        print(line);
        print("\n");
    } else if (is_word(line, "entry")) {
        check_entry();
    } else if (is_word(line, "pages")) {
        check_pages();
    } else if (is_word(line, "much")) {
        for (int i = 0; i < (int)sizeof buffer; i++)
            buffer[i] = 'a' + i % 26;
        for (int i = 0; i < 4; i++)
            print_bytes(buffer, sizeof buffer);
    } else if (is_word(line, "time")) {
        check_time(number(line) * 1000000);
    } else if (is_word(line, "block")) {
        check_block();
    } else if (is_word(line, "read-only")) {
        CHECK(block(BLOCK_READ, handle_of("storage"), 0, buffer, 512) == OK);
        CHECK(block(BLOCK_WRITE, handle_of("storage"), 0, buffer, 512) == EUNSPEC);
    } else if (is_word(line, "net")) {
        check_net("service");
    } else if (is_word(line, "nets")) {
        check_net("first");
        check_net("second");
    } else if (is_word(line, "echo")) {
        echo(number(line));
    } else if (is_word(line, "wait")) {
        print("waiting\n");
        for (;;)
            poll(~0UL);
    } else if (is_word(line, "exit")) {
        halt(number(line), NULL);
    } else if (is_word(line, "abort")) {
        struct { struct trap_regs regs; uint8_t rest[512]; } cookie;
        memset(&cookie, 0, sizeof cookie);
        cookie.regs.rip = 0x1234567;
        cookie.regs.cr2 = 0xbad;
        halt(255, &cookie);
    } else if (is_word(line, "crash")) {
        /* Without tables of its own there is nobody to take the fault. */
        *(volatile uint8_t *)(uintptr_t)function = 0;
    } else if (is_word(line, "bad-pointer")) {
        print_bytes((const void *)info->mem_size, 1);
    } else if (is_word(line, "bad-call")) {
        hypercall(0, buffer);
    } else if (is_word(line, "bad-write")) {
        block(BLOCK_READ, handle_of("storage"), 0, (void *)0x100000, 512);
    } else {
        print("unknown: ");
        print(line);
        halt(2, NULL);
    }
    halt(0, NULL);
}
