/* The first instructions of a guest that starts in 64-bit mode: keeps the state in which it starts, then calls check().
 * Only plain instructions: where ring 0 is emulated, there are no others. */

	.code64
	.section .text.start, "ax"
	.globl start
start:
	movq %rsi, long_state
	movq %rsp, long_state + 8
	/* The stack is ours to make. */
	movl $stack_top, %esp
	pushfq
	popq long_state + 16
	movq %cr0, %rax
	movq %rax, long_state + 24
	movq %cr4, %rax
	movq %rax, long_state + 32
	movl $0xc0000080, %ecx
	rdmsr
	movl %eax, long_state + 40
	movl %edx, long_state + 44
	movw %cs, long_state + 48
	movw %ds, long_state + 50
	movw %es, long_state + 52
	movw %ss, long_state + 54

	/* What these selectors name is in the table that is loaded: each can be loaded again. */
	movw long_state + 50, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	call check
	/* check() has said why if it does not return. */
	movl $0x10, %eax
	movw $0xf4, %dx
	outl %eax, %dx
1:	hlt
	jmp 1b

	.data
	.balign 16
	.globl long_state
long_state:
	.fill 56, 1, 0xee

	.bss
	.balign 16
	.skip 16384
stack_top:

	.section .note.GNU-stack, "", @progbits
