/* A flat binary in 64-bit mode: checks its registers, segments and the identity mapping of 4 GiB. */

	.code64
	.globl start
start:
	movl %eax, %r8d
	movl $2, %edi
	cmpl $0xd00dfeed, %r8d
	jne end
	movl $3, %edi
	cmpl $0xedfe0dd0, (%rbx)
	jne end
	/* Paging, long mode, interrupts off. */
	leaq stack_top(%rip), %rsp
	pushfq
	popq %rax
	movl $4, %edi
	testl $(1 << 9), %eax
	jnz end
	movq %cr0, %rax
	movl $5, %edi
	andl $0x80000001, %eax
	cmpl $0x80000001, %eax
	jne end
	movl $6, %edi
	movl $0xc0000080, %ecx
	rdmsr
	andl $0x500, %eax
	cmpl $0x500, %eax
	jne end
	/* The GDT can be used. */
	movl $7, %edi
	movw %ss, %ax
	movw %ax, %es
	movw %ax, %ss
	/* Registers below 4 GiB are mapped: the local APIC's version. */
	movl $0xfee00030, %esi
	movl (%rsi), %eax
	andl $0xf0, %eax
	cmpl $0x10, %eax
	jne end
	/* And the last page of RAM: 64 MiB. */
	movl $8, %edi
	movl $0x3fffff8, %esi
	movl $0x12345678, (%rsi)
	cmpl $0x12345678, (%rsi)
	jne end
	movl $0x10, %edi
end:
	movl %edi, %eax
	movw $0xf4, %dx
	outl %eax, %dx
	hlt

	.balign 16
	.skip 64
stack_top:

	.section .note.GNU-stack, "", @progbits
