/* A flat binary in real mode, linked at BASE: checks its registers and segments. */

	.code16
	.globl start
start:
	/* ds begins at 0, and memory there can be written. */
	movl %eax, 0x600
	movw %cs, 0x604
	movw $0x5aa5, %es:0x606
	movb $2, %al
	cmpl $0xd00dfeed, 0x600
	jne end
	movb $3, %al
	cmpw $(BASE >> 4 & 0xf000), 0x604
	jne end
	movb $4, %al
	cmpw $0x5aa5, %ss:0x606
	jne end
	/* Real mode, interrupts off. */
	movw $0x8000, %sp
	pushfl
	popl %ecx
	movb $5, %al
	testl $(1 << 9), %ecx
	jnz end
	movl %cr0, %ecx
	movb $6, %al
	testl $0x80000001, %ecx
	jnz end
	/* What is at `data` in its code segment came along. */
	movb $7, %al
	addr32 cmpl $0x600dda7a, %cs:data - (BASE & 0xf0000)
	jne end
	/* The device tree begins with its magic number, big-endian; it may lie above 64 KiB. */
	movl %ebx, %ecx
	shrl $4, %ecx
	movw %cx, %ds
	andl $15, %ebx
	movb $8, %al
	cmpl $0xedfe0dd0, (%bx)
	jne end
	movb $0x10, %al
end:
	movw $0xf4, %dx
	outb %al, %dx
	hlt

data:
	.long 0x600dda7a

	.section .note.GNU-stack, "", @progbits
