/* The interface between a Solo5 guest and hvt, as far as this guest uses it: hvt_abi.h version 2, elf_abi.h, mft_abi.h
 * version 1, solo5.h of Solo5. */
#include <stddef.h>
#include <stdint.h>

struct boot_info {
    uint64_t mem_size;
    uint64_t kernel_end;
    uint64_t cpu_cycle_freq;
    const char *cmdline;
    const struct manifest *mft;
};

enum hypercall { WALLTIME = 1, PUTS, POLL, BLOCK_WRITE, BLOCK_READ, NET_WRITE, NET_READ, HALT };
enum result { OK, AGAIN, EINVAL, EUNSPEC };

struct walltime { uint64_t nsecs; };
struct puts { uint64_t data, len; };
struct poll { uint64_t timeout_nsecs, ready_set; int32_t ret; };
struct block { uint64_t handle, offset, data, len; int32_t ret; };
struct net { uint64_t handle, data, len; int32_t ret; };
struct halt { uint64_t cookie; int32_t exit_status; };
struct trap_regs { uint64_t cr2, ec, rip, cs, rflags, rsp, ss; };

static inline void hypercall(int number, volatile void *argument)
{
    __asm__ volatile("outl %0, %1"
                     :
                     : "a"((uint32_t)(uintptr_t)argument), "d"((uint16_t)(0x500 + number))
                     : "memory");
}

enum { BLOCK_BASIC = 1, NET_BASIC = 2, RESERVED_FIRST = 1 << 30 };

struct entry {
    char name[68];
    uint32_t type;
    union {
        struct { uint64_t capacity; uint16_t block_size; } block;
        struct { uint8_t mac[6]; uint16_t mtu; } net;
    } u;
    uint64_t backing;
    uint8_t attached;
};

#ifndef DEVICES
#define DEVICES { .name = "storage", .type = BLOCK_BASIC }, { .name = "service", .type = NET_BASIC },
#endif
#define ENTRIES (sizeof((struct entry[]){ { .type = RESERVED_FIRST }, DEVICES }) / sizeof(struct entry))

struct manifest {
    uint32_t version, entries;
    struct entry e[ENTRIES];
};

struct note_header { uint32_t name_size, desc_size, type; char name[8]; };
struct abi_note { struct note_header h; uint32_t target, version, reserved[2]; };
struct manifest_note { struct note_header h; struct manifest m; };
