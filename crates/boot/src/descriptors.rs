//! The descriptor tables of direct entry: GDT, TSS and IDT (SDM vol. 3A §3.5, §8.7, §6.14.1).

use goldcrest_abi::note::TRAP_STUB_SIZE;
use goldcrest_abi::{PORT_LIMIT, selector};
use goldcrest_x86::Segment;

/// Bytes of a task state segment before the I/O permission map.
const TSS_FIELDS: u16 = 0x68;
/// Bytes of the I/O permission map, a bit a port: those below [`PORT_LIMIT`].
const IO_MAP: u16 = PORT_LIMIT / 8;
const _: () = assert!(PORT_LIMIT.is_multiple_of(8));
/// Bytes of the TSS: the map ends with a byte of ones (SDM vol. 1 §19.5.2).
pub(crate) const TSS_SIZE: u16 = TSS_FIELDS + IO_MAP + 1;
/// The last offset of the GDT.
pub(crate) const GDT_LIMIT: u16 = 0x37;
const _: () = assert!(GDT_LIMIT as usize + 1 == selector::GDT_SIZE);
/// The last offset of an IDT with all vectors.
pub(crate) const IDT_LIMIT: u16 = 0xfff;

/// The descriptors that [`selector`] names; accessed and busy bits are set, so that the processor never writes here.
pub(crate) fn gdt(tss: u64) -> Vec<u8> {
    let tss = tss_segment(tss);
    let entries: [u64; selector::GDT_SIZE / 8] = [
        0,
        Segment::code64(selector::KERNEL_CODE, 0).descriptor(),
        Segment::data(selector::KERNEL_DATA, 0).descriptor(),
        Segment::data(selector::USER_DATA, 3).descriptor(),
        Segment::code64(selector::USER_CODE, 3).descriptor(),
        tss.descriptor(),
        tss.descriptor_high(),
    ];
    entries.map(u64::to_le_bytes).as_flattened().to_vec()
}

/// The task register for a TSS at `base`.
pub(crate) fn tss_segment(base: u64) -> Segment {
    Segment::tss(selector::TSS, base, u32::from(TSS_SIZE) - 1)
}

/// A task state segment with the stack for ring 0, and with an I/O permission map that opens the ports below
/// [`PORT_LIMIT`].
///
/// With IOPL 3 the map is not consulted. It is there for hypervisors that lose IOPL, on the way into ring 3 or by
/// `sysret`: restricted ones do.
pub(crate) fn tss(rsp0: u64) -> Vec<u8> {
    let mut tss = vec![0; usize::from(TSS_SIZE - 1)];
    tss.push(0xff);
    let mut set = |at, bytes: &[u8]| {
        let fields = tss.iter_mut().skip(at).zip(bytes);
        fields.for_each(|(field, byte)| *field = *byte);
    };
    set(4, &rsp0.to_le_bytes());
    set(102, &TSS_FIELDS.to_le_bytes());
    tss
}

/// 256 interrupt gates into ring 0, each to its stub. `int3` and `into` are open to ring 3.
pub(crate) fn idt(stubs: u64) -> Vec<u8> {
    let handler = |vector| stubs.wrapping_add(vector * TRAP_STUB_SIZE);
    let gates: Vec<_> = (0..256)
        .map(|vector| gate(vector, handler(vector)))
        .collect();
    gates.as_flattened().to_vec()
}

fn gate(vector: u64, handler: u64) -> [u8; 16] {
    const PRESENT: u64 = 1 << 47;
    const RING_3: u64 = 3 << 45;
    const INTERRUPT_GATE: u64 = 0xe << 40;
    let ring = if matches!(vector, 3 | 4) { RING_3 } else { 0 };
    let first = handler & 0xffff
        | u64::from(selector::KERNEL_CODE) << 16
        | PRESENT
        | ring
        | INTERRUPT_GATE
        | (handler >> 16 & 0xffff) << 48;
    let gate = u128::from(first) | u128::from(handler >> 32) << 64;
    gate.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gdt_has_the_selectors_of_the_abi() {
        let gdt = gdt(0x1040);
        let at = |selector: u16| {
            let offset = usize::from(selector & !7);
            u64::from_le_bytes(gdt[offset..offset + 8].try_into().unwrap())
        };
        assert_eq!(at(selector::KERNEL_CODE), 0x00af_9b00_0000_ffff);
        assert_eq!(at(selector::KERNEL_DATA), 0x00cf_9300_0000_ffff);
        assert_eq!(at(selector::USER_DATA), 0x00cf_f300_0000_ffff);
        assert_eq!(at(selector::USER_CODE), 0x00af_fb00_0000_ffff);
        assert_eq!(at(selector::TSS), 0x0000_8b00_1040_0468);
    }

    #[test]
    fn the_tss_has_rsp0_at_4_and_an_open_map_where_102_says() {
        let tss = tss(0x1122_3344_5566_7788);
        assert_eq!(tss[4..12], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(tss[102..104], [0x68, 0]);
        let (map, end) = tss[104..].split_at(usize::from(PORT_LIMIT) / 8);
        assert_eq!(end, [0xff]);
        let others = tss[..4].iter().chain(&tss[12..102]).chain(map);
        assert!(others.into_iter().all(|byte| *byte == 0));
    }

    #[test]
    fn gates_lead_to_their_stubs() {
        let idt = idt(0x1234_5678_9abc_d000);
        assert_eq!(idt.len(), usize::from(IDT_LIMIT) + 1);
        let gate = |n: usize| &idt[n * 16..n * 16 + 16];
        let expected = [
            0x00, 0xd0, 8, 0, 0, 0x8e, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12,
        ];
        assert_eq!(gate(0)[..12], expected);
        assert_eq!(gate(3)[5], 0xee);
        assert_eq!(gate(4)[5], 0xee);
        assert_eq!(gate(255)[..2], [0xf0, 0xdf]);
        assert_eq!(gate(255)[5], 0x8e);
    }
}
