//! A bzImage: one sector of boot code, four of setup code, the kernel.

/// Where the protected-mode kernel begins.
pub const KERNEL_OFFSET: usize = 5 * 512;

/// A relocatable kernel of 8 KiB that prefers to lie at 16 MiB and needs 1 MiB there.
pub fn bzimage() -> Vec<u8> {
    let mut image = vec![0; KERNEL_OFFSET];
    let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, b"MZ");
    set(0x1f1, &[4]);
    set(0x1f4, &(0x2000u32 / 16).to_le_bytes());
    set(0x1fe, &0xaa55u16.to_le_bytes());
    set(0x200, &[0xeb, 0x6a]);
    set(0x202, b"HdrS");
    set(0x206, &0x20fu16.to_le_bytes());
    set(0x20e, &0x300u16.to_le_bytes());
    set(0x211, &[1]);
    set(0x22c, &0x7fff_ffffu32.to_le_bytes());
    set(0x230, &0x20_0000u32.to_le_bytes());
    set(0x234, &[1, 21]);
    set(0x236, &1u16.to_le_bytes());
    set(0x238, &2047u32.to_le_bytes());
    set(0x258, &0x100_0000u64.to_le_bytes());
    set(0x260, &0x10_0000u32.to_le_bytes());
    set(0x268, &0x1234_5678u32.to_le_bytes());
    set(0x500, b"6.1.0-test (someone) #1 SMP\0");
    image.extend((0..0x2000u32).map(|n| (n / 7).to_le_bytes()[0]));
    image
}
