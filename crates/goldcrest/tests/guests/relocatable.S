/* A relocatable Multiboot2 kernel, linked at 16 MiB: it finds out where it is, and that this is what it is told.
 *
 * It is linked at BASE. MIN, MAX, ALIGN and PREFERENCE are those of its tag; EXPECTED is where it is to lie. */

	.section .header, "a"
	.balign 8
header:
	.long 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
	.short 10, 0
	.long 24, MIN, MAX, ALIGN, PREFERENCE
	.short 0, 0
	.long 8
header_end:

	.code32
	.section .text.start, "ax"
	.globl start
start:
	/* Without a stack of its own: below 1 MiB there is room. */
	movl $0x80000, %esp
	call 1f
1:	popl %esi
	/* Where the image begins. */
	subl $(1b - BASE), %esi
	movl $2, %eax
	cmpl $EXPECTED, %esi
	jne end

	/* The tag "image load base" says the same. */
	leal 8(%ebx), %edi
next:
	movl $3, %eax
	cmpl $0, (%edi)
	je end
	cmpl $21, (%edi)
	je found
	movl 4(%edi), %eax
	addl $7, %eax
	andl $~7, %eax
	addl %eax, %edi
	jmp next
found:
	movl $4, %eax
	cmpl %esi, 8(%edi)
	jne end

	/* Data came along, and zeroes behind it. */
	movl $5, %eax
	cmpl $0x600dda7a, data - BASE(%esi)
	jne end
	movl $6, %eax
	cmpl $0, zero - BASE(%esi)
	jne end
	movl $0x10, %eax
end:
	movw $0xf4, %dx
	outl %eax, %dx
	hlt

	.data
data:
	.long 0x600dda7a
	.bss
zero:
	.skip 8192

	.section .note.GNU-stack, "", @progbits
