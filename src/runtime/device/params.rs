//! Parameters of a kernel: the members of its argument struct by name, in the memory layout of C++.

use bytemuck::NoUninit;

use crate::device::{Address, EncodedMap, Memory, Span};

/// Bytes of a kernel's argument struct. Tensors are replaced by their addresses at the launch.
#[derive(Clone, Debug)]
pub struct Params {
    bytes: Vec<u8>,
    align: usize,
    /// Offsets of addresses, and the spans that they refer to.
    spans: Vec<(usize, Span)>,
}

impl Default for Params {
    fn default() -> Params {
        Params { bytes: Vec::new(), align: 1, spans: Vec::new() }
    }
}

impl Params {
    /// Copies the bytes of a struct that already has the right layout.
    pub fn of<T: NoUninit>(args: &T) -> Params {
        Params { bytes: bytemuck::bytes_of(args).to_vec(), align: align_of::<T>(), spans: Vec::new() }
    }

    /// Appends one member, after the padding that it requires.
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

    /// Returns the bytes for a launch, padded to the struct's alignment.
    pub fn into_bytes(mut self, memory: &Memory) -> Vec<u8> {
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
    /// Appends the value to `params`, at its alignment.
    fn append(self, params: &mut Params);
}

/// Implements `Param` for types whose bytes are used unchanged.
macro_rules! plain {
    ($($type:ty),*) => { $(impl $crate::device::Param for $type {
        fn append(self, params: &mut $crate::device::Params) {
            $crate::device::Params::of(&self).append(params);
        }
    })* };
}
pub(crate) use plain;

plain!(i32, u32, i64, u64, f32, f64, EncodedMap);

/// Passes a bool as an `int`, 0 or 1.
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

/// Appends a nested struct.
impl Param for Params {
    fn append(mut self, params: &mut Params) {
        self.pad(self.align);
        params.pad(self.align);
        let at = params.bytes.len();
        params.bytes.extend_from_slice(&self.bytes);
        params.spans.extend(self.spans.into_iter().map(|(i, span)| (at + i, span)));
    }
}

/// Builds the [`Params`] of an argument struct. Example:
///
/// `params!(rope::Args { qkv, cos, sin, rows, heads: heads.q as i32 })`
///
/// The members must be those of the C++ struct, with the same names and in the same order, without padding members
/// (`tests/runtime/kernels/params.rs` compares them). Each member is a number, a tensor (its address is passed) or nested
/// [`Params`].
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
