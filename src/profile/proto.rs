//! Messages of protocol buffers, written into memory that was mapped before.
//!
//! A message is written in place behind its tag and three bytes for its length.

/// Memory that is filled. What does not fit is counted, not written.
pub(super) struct Proto<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

/// Bytes of a message's length: up to 2 MiB.
const LEN_BYTES: usize = 3;

const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl<'a> Proto<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Proto<'a> {
        Proto { bytes, len: 0 }
    }

    /// The number of bytes that were written, if all fitted.
    pub(super) fn finish(self) -> Option<usize> {
        (self.len <= self.bytes.len()).then_some(self.len)
    }

    fn byte(&mut self, byte: u8) {
        if let Some(room) = self.bytes.get_mut(self.len) {
            *room = byte;
        }
        self.len += 1;
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn tag(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    /// A field with a number, which is left out if it is 0.
    pub(super) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            self.varint(value);
        }
    }

    /// A field with bytes.
    pub(super) fn text(&mut self, field: u64, text: &[u8]) {
        self.tag(field, BYTES);
        self.varint(text.len() as u64);
        for &byte in text {
            self.byte(byte);
        }
    }

    /// A field with a message, or with packed numbers.
    pub(super) fn message(&mut self, field: u64, fill: impl FnOnce(&mut Proto<'a>)) {
        self.tag(field, BYTES);
        let start = self.len + LEN_BYTES;
        self.len = start;
        fill(self);
        let len = self.len - start;
        for (i, room) in (start - LEN_BYTES..start).enumerate() {
            let more = if i + 1 < LEN_BYTES { 0x80 } else { 0 };
            if let Some(room) = self.bytes.get_mut(room) {
                *room = (len >> (7 * i)) as u8 & 0x7f | more;
            }
        }
    }

    /// A field with packed numbers.
    pub(super) fn packed(&mut self, field: u64, values: impl IntoIterator<Item = u64>) {
        self.message(field, |to| {
            values.into_iter().for_each(|value| to.varint(value));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_bytes() {
        let mut bytes = [0; 64];
        let mut proto = Proto::new(&mut bytes);
        proto.number(1, 150);
        proto.number(2, 0);
        proto.text(2, b"testing");
        proto.message(3, |inner| inner.number(1, 1));
        proto.packed(4, [3, 270, 86942]);
        let len = proto.finish().unwrap();
        let expected = [
            &[0x08, 0x96, 0x01][..],
            b"\x12\x07testing",
            &[0x1a, 0x82, 0x80, 0x00, 0x08, 0x01],
            &[0x22, 0x86, 0x80, 0x00, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05],
        ];
        assert_eq!(bytes[..len], expected.concat());
    }

    #[test]
    fn what_does_not_fit_is_counted_only() {
        let mut bytes = [0xff; 10];
        let mut proto = Proto::new(&mut bytes[..6]);
        proto.message(1, |inner| inner.text(2, b"long"));
        assert_eq!(proto.finish(), None);
        assert_eq!(bytes[6..], [0xff; 4]);
    }
}
