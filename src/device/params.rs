//! A kernel's parameters: the members of its argument struct by name, laid out as C++ lays them out.

use bytemuck::NoUninit;

use crate::device::driver::{Address, EncodedMap};
use crate::device::memory::{Memory, Span};

/// The bytes of a kernel's argument struct. Tensors become addresses at the launch.
#[derive(Clone, Debug)]
pub struct Params {
    bytes: Vec<u8>,
    align: usize,
    /// Where addresses go, and of what.
    spans: Vec<(usize, Span)>,
}

impl Default for Params {
    fn default() -> Params {
        Params { bytes: Vec::new(), align: 1, spans: Vec::new() }
    }
}

impl Params {
    /// The bytes of a struct that is laid out already.
    pub fn of<T: NoUninit>(args: &T) -> Params {
        Params { bytes: bytemuck::bytes_of(args).to_vec(), align: align_of::<T>(), spans: Vec::new() }
    }

    /// The same with one more member, behind the padding that it needs.
    #[must_use]
    pub fn with(mut self, member: impl Param) -> Params {
        member.append(&mut self);
        self
    }

    /// Appends the address of `span`.
    pub fn append_address(&mut self, span: Span) {
        (0 as Address).append(self);
        self.spans.push((self.bytes.len() - size_of::<Address>(), span));
    }

    /// The bytes that a launch takes, padded to the struct's alignment.
    pub(super) fn into_bytes(mut self, memory: &Memory) -> Vec<u8> {
        self.pad(self.align);
        for (at, span) in self.spans {
            self.bytes[at..at + size_of::<Address>()].copy_from_slice(&memory.address(span).to_ne_bytes());
        }
        self.bytes
    }

    fn pad(&mut self, align: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.align = self.align.max(align);
    }
}

/// A member of an argument struct.
pub trait Param {
    /// Appends the value to `params`, on its alignment.
    fn append(self, params: &mut Params);
}

/// Types whose bytes are the kernel's.
macro_rules! plain {
    ($($type:ty),*) => { $(impl $crate::device::Param for $type {
        fn append(self, params: &mut $crate::device::Params) {
            $crate::device::Params::of(&self).append(params);
        }
    })* };
}
pub(crate) use plain;

plain!(i32, u32, i64, u64, f32, f64, EncodedMap);

/// An `int`, 0 or 1.
impl Param for bool {
    fn append(self, params: &mut Params) {
        i32::from(self).append(params);
    }
}

impl<T: Param, const N: usize> Param for [T; N] {
    fn append(self, params: &mut Params) {
        self.into_iter().for_each(|member| member.append(params));
    }
}

/// A struct in the struct.
impl Param for Params {
    fn append(mut self, params: &mut Params) {
        self.pad(self.align);
        params.pad(self.align);
        let at = params.bytes.len();
        params.bytes.extend_from_slice(&self.bytes);
        params.spans.extend(self.spans.into_iter().map(|(i, span)| (at + i, span)));
    }
}

/// The [`Params`] of an argument struct: `params!(rope::Args { qkv, cos, sin, rows, heads: heads.q as i32 })` has the
/// members of the C++ struct, in its order and by its names, but for those that only pad (`tests/kernels/params.rs` compares
/// them). Each is a number, a tensor whose address is meant, or [`Params`] in turn.
macro_rules! params {
    ($name:path { $($member:ident $(: $value:expr)?),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut params = $crate::device::Params::default();
        $($crate::device::Param::append($crate::device::params!(@ $member $($value)?), &mut params);)*
        params
    }};
    (@ $member:ident) => { $member };
    (@ $member:ident $value:expr) => { $value };
}
pub(crate) use params;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Plan, Region};

    #[test]
    fn members_lie_where_c_puts_them() {
        let mut memory = Memory::map(&Plan::uniform(1 << 12)).unwrap();
        let span = memory.alloc(Region::Weights, 64).unwrap();
        let mut inner = params!(inner::Args { flag: true });
        inner.append_address(span);
        let tail = 7;
        let bytes = params!(outer::Args { first: 1.5f32, inner, pair: [2i32, 3], tail }).into_bytes(&memory);
        assert_eq!(bytes.len(), 40);
        let word = |i: usize| i32::from_ne_bytes(bytes[i..i + 4].try_into().unwrap());
        assert_eq!([8, 24, 28, 32, 36].map(word), [1, 2, 3, 7, 0]);
        assert_eq!(bytes[16..24], memory.address(span).to_ne_bytes());
        assert_eq!(Params::of(&[1u64, 2]).into_bytes(&memory).len(), 16);
    }
}
