//! Hand packing of small values: variable-length integers and length-prefixed bytes.

use crate::tx::Error;

/// Appends packed parts.
#[derive(Debug, Default)]
pub(crate) struct Packer(Vec<u8>);

impl Packer {
    /// 7 bits a byte, low bits first.
    pub(crate) fn uint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
        self
    }

    /// Small magnitudes of both signs are short.
    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        self.uint(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    /// A text with its length before it.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.uint(text.len() as u64);
        self.raw(text.as_bytes())
    }

    /// Bytes of a length the reader knows.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Ascending or not, a list of numbers with its length before it.
    pub(crate) fn list(&mut self, numbers: impl ExactSizeIterator<Item = u32>) -> &mut Self {
        self.uint(numbers.len() as u64);
        for number in numbers {
            self.uint(number.into());
        }
        self
    }

    /// The packed bytes.
    pub(crate) fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes packed parts back.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Unpacker<'a> {
    /// Reads `bytes`; `what` names the value when it turns out damaged.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    /// A value that cannot be.
    pub(crate) fn damaged(&self) -> Error {
        Error::Corrupt(self.what)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.bytes.split_first().ok_or(Error::Corrupt(self.what))?;
        self.bytes = rest;
        Ok(*first)
    }

    /// The bytes before the next one of a kind.
    pub(crate) fn up_to(&mut self, is_end: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.bytes.iter().position(|byte| is_end(*byte)).unwrap_or(self.bytes.len());
        let (head, rest) = self.bytes.split_at(end);
        self.bytes = rest;
        head
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.uint()?.try_into().map_err(|_| self.damaged())
    }

    pub(crate) fn int(&mut self) -> Result<i64, Error> {
        let value = self.uint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or(Error::Corrupt(self.what))?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(Error::Corrupt(self.what))?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Error> {
        let length = usize::try_from(self.uint()?).map_err(|_| self.damaged())?;
        str::from_utf8(self.raw(length)?).map_err(|_| Error::Corrupt(self.what))
    }

    pub(crate) fn list(&mut self) -> Result<Vec<u32>, Error> {
        let length = self.uint()?;
        (0..length).map(|_| self.u32()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Packer, Unpacker};

    proptest! {
        #[test]
        fn what_is_packed_comes_back(a: u64, b: i64, text: String, list: Vec<u32>) {
            let bytes = Packer::default().uint(a).int(b).text(&text).list(list.iter().copied()).done();
            let mut from = Unpacker::new(&bytes, "test");
            prop_assert_eq!(from.uint().unwrap(), a);
            prop_assert_eq!(from.int().unwrap(), b);
            prop_assert_eq!(from.text().unwrap(), text);
            prop_assert_eq!(from.list().unwrap(), list);
            prop_assert!(from.rest().is_empty());
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(bytes: Vec<u8>) {
            let mut from = Unpacker::new(&bytes, "test");
            while from.list().is_ok() && from.text().is_ok() && from.int().is_ok() {}
        }
    }
}
