//! The instruction sets of the CPU kernels, and the macro that compiles one function for each of them.

/// Variants of the CPU kernels, best first. In f32 all variants give bitwise identical results. In bf16 the order of
/// summation in matrix products differs for the AMX tiles, and for `Avx512` if the machine has AVX512-BF16
/// (`docs/dev/design/runtime.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Isa {
    /// `Avx512`, with bf16 products computed by AMX tiles.
    Amx,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Plain Rust, for any machine.
    Portable,
    /// The machine's vector instructions, with AMX's bf16 products emulated in plain Rust. On any machine, the results
    /// are bitwise identical to those of `Amx`. The emulation is slow.
    AmxTwin,
}

impl Isa {
    /// Every variant.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable, Isa::AmxTwin];

    /// Returns the best variant of this machine, without considering AMX tiles.
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

    /// Returns the variant for everything except bf16 products: `Avx512`, `Avx2` or `Portable`.
    #[inline(always)]
    pub fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            Isa::AmxTwin => Isa::vectors_here(),
            isa => isa,
        }
    }

    /// Returns true if bf16 products are computed by AMX tiles, or emulated to give the same results.
    pub fn has_tiles(self) -> bool {
        matches!(self, Isa::Amx | Isa::AmxTwin)
    }

    /// Returns true if bf16 products use `vdpbf16ps`.
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

    /// Describes how bf16 products are computed, for log messages.
    pub fn bf16_products(self) -> &'static str {
        match self {
            Isa::Amx => "tdpbf16ps (AMX)",
            Isa::AmxTwin => "AMX's twin in plain Rust",
            isa if isa.has_slow_dot() => "vdpbf16ps, or multiply-adds with the same bits",
            isa if isa.has_bf16_dot() => "vdpbf16ps",
            _ => "bf16 widened to f32",
        }
    }

    /// Returns the variant with this name.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Returns the name of the summation order in use. Checkpoints record it, because bf16 results are reproducible
    /// only with the same summation order.
    pub fn chains(self) -> &'static str {
        match self {
            Isa::Amx | Isa::AmxTwin => "avx512+amx",
            isa if isa.has_bf16_dot() => "avx512+bf16",
            isa => isa.name(),
        }
    }

    /// Returns the name that logs and `OMR_BODY` use.
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

/// Compiles one function for each [`Isa`] and dispatches on a first argument `isa: Isa`.
///
/// The body must be plain Rust over fixed-width loops (16 lanes), with `f32::mul_add` wherever a fused multiply-add is
/// intended. LLVM compiles it to the widest vectors that the instruction set allows, and the results are bitwise
/// identical for all. Functions that the body calls must be `#[inline(always)]`. Generic parameters must be one list,
/// for example `<T: Elem>`.
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
        // The slices and numbers are separate arguments. A struct of them would have to be inlined, too.
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
                // SAFETY: `Device::cpu` refuses an `Isa` for which `Isa::available` is false.
                #[cfg(target_arch = "x86_64")]
                $crate::device::Isa::Avx512 => unsafe { avx512 $(::<$($g),*>)? ($($arg),*) },
                // SAFETY: `Device::cpu` refuses an `Isa` for which `Isa::available` is false.
                #[cfg(target_arch = "x86_64")]
                $crate::device::Isa::Avx2 => unsafe { avx2 $(::<$($g),*>)? ($($arg),*) },
                _ => body $(::<$($g),*>)? ($($arg),*),
            }
        }
    };
}
pub use cpu_kernel;
