//! Which instruction set the CPU bodies use, and the macro that compiles one body for each.

/// Kernel bodies, best first. In f32 all give equal bits; in bf16 products by tiles have a chain of their own, and
/// `Avx512` has one where the machine has AVX512-BF16 (DESIGN section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Isa {
    /// `Avx512` with bf16 products by AMX tiles.
    Amx,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Plain Rust: any machine.
    Portable,
    /// The machine's vectors with bf16 products as AMX's, in plain Rust: the same bits, slowly, on any machine.
    AmxTwin,
}

impl Isa {
    /// All of them.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable, Isa::AmxTwin];

    /// The best bodies of this machine but for products by tiles.
    pub(super) fn vectors_here() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// The bodies of everything but bf16 products: `Avx512`, `Avx2` or `Portable`.
    #[inline(always)]
    pub fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            Isa::AmxTwin => Isa::vectors_here(),
            isa => isa,
        }
    }

    /// True when bf16 products go by AMX's tiles, or as they do.
    pub fn has_tiles(self) -> bool {
        matches!(self, Isa::Amx | Isa::AmxTwin)
    }

    /// True when bf16 products use `vdpbf16ps`.
    pub fn has_bf16_dot(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            self == Isa::Avx512 && is_x86_feature_detected!("avx512bf16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }

    /// How bf16 products are computed, for people.
    pub fn bf16_products(self) -> &'static str {
        match self {
            Isa::Amx => "tdpbf16ps (AMX)",
            Isa::AmxTwin => "AMX's twin in plain Rust",
            isa if isa.has_bf16_dot() => "vdpbf16ps",
            _ => "bf16 widened to f32",
        }
    }

    /// The bodies of a name.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Name of the chains of products in use, for checkpoints: in bf16, bits are promised for the same chains.
    pub fn chains(self) -> &'static str {
        match self {
            Isa::Amx | Isa::AmxTwin => "avx512+amx",
            isa if isa.has_bf16_dot() => "avx512+bf16",
            isa => isa.name(),
        }
    }

    /// Name in logs and of `OMR_BODY`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
            Isa::AmxTwin => "amx-twin",
        }
    }
}

/// Compiles one function body for each [`Isa`] and dispatches on a first argument `isa: Isa`.
///
/// The body must be plain Rust over fixed-width loops (16 lanes) with `f32::mul_add` where a fused product is
/// meant: LLVM turns it into the widest vectors the body's features allow, and the bits are the same for all.
/// Functions it calls must be `#[inline(always)]`. Generics: one list `<T: Bound, ...>`.
///
/// ```ignore
/// cpu_kernel! {
///     /// y = a x + y
///     pub fn axpy<T: Elem>(a: f32, x: &[T], y: &mut [T]) { ... }
/// }
/// axpy::<f32>(isa, 2.0, x, y);
/// ```
#[macro_export]
macro_rules! cpu_kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident : $b:path),*>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        // A body's slices and numbers come one by one: what they stand in would have to be inlined too.
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($g: $b),*>)? (isa: $crate::device::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<$($g: $b),*>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512 $(<$($g: $b),*>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$($g),*>)? ($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($g: $b),*>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$($g),*>)? ($($arg),*) }
            match isa.vectors() {
                // SAFETY: an `Isa` other than `Portable` is only run where `Isa::available` holds (Device::cpu).
                #[cfg(target_arch = "x86_64")]
                $crate::device::Isa::Avx512 => unsafe { avx512 $(::<$($g),*>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::device::Isa::Avx2 => unsafe { avx2 $(::<$($g),*>)? ($($arg),*) },
                _ => body $(::<$($g),*>)? ($($arg),*),
            }
        }
    };
}
pub use cpu_kernel;
