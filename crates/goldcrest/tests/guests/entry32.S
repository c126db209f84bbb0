/* The first instructions of a guest that starts in 32-bit protected mode: keeps the state in which it starts, then calls
 * check(). Only plain instructions: where ring 0 is emulated, there are no others. */

	.code32
	.section .text.start, "ax"
	.globl start
start:
	/* Through ds, which the protocols promise. */
	movl %eax, entry_state
	movl %ebx, entry_state + 4
	movl %esi, entry_state + 8
	movl %edi, entry_state + 12
	/* The stack is ours to make; ss is promised. */
	movl $stack_top, %esp
	pushfl
	popl entry_state + 16
	movl %cr0, %eax
	movl %eax, entry_state + 20
	movl %cr4, %eax
	movl %eax, entry_state + 24
	movw %cs, entry_state + 28
	movw %ss, entry_state + 30

	/* Each segment begins at 0 and reaches the end: the local APIC's version is read through it. */
	movl $0xfee00030, %ebx
	movl %ds:(%ebx), %eax
	movl %eax, through_segments
	movl %es:(%ebx), %eax
	movl %eax, through_segments + 4
	movl %fs:(%ebx), %eax
	movl %eax, through_segments + 8
	movl %gs:(%ebx), %eax
	movl %eax, through_segments + 12
	movl %ss:(%ebx), %eax
	movl %eax, through_segments + 16
	movl %cs:(%ebx), %eax
	movl %eax, through_segments + 20

	/* And each data segment can be written. */
	movl $0x11111111, %eax
	movl %eax, %es:written
	movl %eax, %fs:written + 4
	movl %eax, %gs:written + 8
	movl %eax, %ss:written + 12

	call check
	/* check() has said why if it does not return. */
	movl $0x10, %eax
	movw $0xf4, %dx
	outl %eax, %dx
1:	hlt
	jmp 1b

	.data
	.balign 16
	.globl entry_state, through_segments, written
entry_state:
	.fill 32, 1, 0xee
through_segments:
	.fill 24, 1, 0xee
written:
	.fill 16, 1, 0

	.bss
	.balign 16
	.skip 16384
stack_top:

	.section .note.GNU-stack, "", @progbits
