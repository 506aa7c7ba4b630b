//! CPU implementation of the update, in blocks of 256 elements, for every storage type of weights and moments.

use half::bf16;

use super::code8::{self, BLOCK};
use super::factors::{Factors, Noise};
use super::master::{join, split};
use super::parameter::{Moments, Parameter};
use crate::device::{Cpu, Parts, ViewMut, cpu_kernel};
use crate::tensor::{DType, Elem};
use omr_base::philox::philox4x32_10;

/// Elements of one work item.
const ITEM: usize = 32 * BLOCK;

/// Weights of one work item.
enum Weights<'a> {
    F32(&'a mut [f32]),
    Split(&'a mut [bf16], &'a mut [i16]),
    Rounded(&'a mut [bf16]),
}

/// Moments of one work item.
enum Stored<'a> {
    F32(&'a mut [f32], &'a mut [f32]),
    Bf16(&'a mut [bf16], &'a mut [bf16]),
    Code8([&'a mut [u8]; 2], [&'a mut [f32]; 2]),
}

/// Updates a parameter or a range of one.
pub(super) fn update(cpu: Cpu<'_>, parameter: Parameter, clip: f32, factors: Factors, noise: Noise) {
    let Parameter { first, w, lo, grad, moments } = parameter;
    let (len, dtype) = (w.len(), w.dtype);
    // All views are requested in one array, so an absent tensor is passed as an empty slice of the weights and not
    // used.
    let none = w.slice(0, 0);
    let [m, m_scales, v, v_scales] = moments.tensors().map(|tensor| tensor.unwrap_or(none));
    let outs = [w, lo.unwrap_or(none), m, m_scales, v, v_scales];
    let ([w, low, m, m_scales, v, v_scales], [g]) = cpu.memory.tensors(outs, [grad]);
    let g = g.of::<f32>();
    let weights: Vec<Weights<'_>> = match (dtype, lo) {
        (DType::Bf16, Some(_)) => {
            let halves = w.of::<bf16>().chunks_mut(ITEM).zip(low.of::<i16>().chunks_mut(ITEM));
            halves.map(|(hi, lo)| Weights::Split(hi, lo)).collect()
        }
        (DType::Bf16, None) => w.of::<bf16>().chunks_mut(ITEM).map(Weights::Rounded).collect(),
        _ => w.of::<f32>().chunks_mut(ITEM).map(Weights::F32).collect(),
    };
    let moments: Vec<Stored<'_>> = match moments {
        Moments::F32 { .. } => pairs(m, v, ITEM).map(|[m, v]| Stored::F32(m, v)).collect(),
        Moments::Bf16 { .. } => pairs(m, v, ITEM).map(|[m, v]| Stored::Bf16(m, v)).collect(),
        Moments::Code8 { .. } => {
            let scales = pairs(m_scales, v_scales, ITEM / BLOCK);
            pairs(m, v, ITEM).zip(scales).map(|(codes, scales)| Stored::Code8(codes, scales)).collect()
        }
    };
    let mut items: Vec<_> = weights.into_iter().zip(moments).collect();
    let items = Parts::new(&mut items, 1);
    cpu.pool.run(len.div_ceil(ITEM), |i| {
        let from = i * ITEM;
        let g = &g[from..(from + ITEM).min(len)];
        let (weights, moments) = &mut items.take(i)[0];
        item(cpu.isa, weights, moments, g, first + from, clip, factors, noise);
    });
}

/// Cuts both moments into chunks of `len` elements.
fn pairs<'a, T: bytemuck::Pod>(m: ViewMut<'a>, v: ViewMut<'a>, len: usize) -> impl Iterator<Item = [&'a mut [T]; 2]> {
    m.of::<T>().chunks_mut(len).zip(v.of::<T>().chunks_mut(len)).map(|(m, v)| [m, v])
}

cpu_kernel! {
    /// Updates the elements of one item. The first of them has index `from` in the whole parameter.
    fn item(
        weights: &mut Weights<'_>,
        stored: &mut Stored<'_>,
        g: &[f32],
        from: usize,
        clip: f32,
        f: Factors,
        noise: Noise,
    ) {
        let (mut w_wide, mut m_wide, mut v_wide) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        let mut words = [0; BLOCK];
        for (block, g) in g.chunks(BLOCK).enumerate() {
            let at = block * BLOCK..block * BLOCK + g.len();
            let first = from + at.start;
            {
                let w = match weights {
                    Weights::F32(w) => &mut w[at.clone()],
                    Weights::Split(hi, lo) => {
                        let halves = hi[at.clone()].iter().zip(&lo[at.clone()]);
                        w_wide.iter_mut().zip(halves).for_each(|(w, (hi, lo))| *w = join(*hi, *lo));
                        &mut w_wide[..g.len()]
                    }
                    Weights::Rounded(w) => {
                        w_wide.iter_mut().zip(&w[at.clone()]).for_each(|(wide, w)| *wide = Elem::to_f32(*w));
                        &mut w_wide[..g.len()]
                    }
                };
                let (m, v) = match stored {
                    Stored::F32(m, v) => (&mut m[at.clone()], &mut v[at.clone()]),
                    Stored::Bf16(m, v) => {
                        m_wide.iter_mut().zip(&m[at.clone()]).for_each(|(wide, m)| *wide = Elem::to_f32(*m));
                        v_wide.iter_mut().zip(&v[at.clone()]).for_each(|(wide, v)| *wide = Elem::to_f32(*v));
                        (&mut m_wide[..g.len()], &mut v_wide[..g.len()])
                    }
                    Stored::Code8([m, v], [m_scales, v_scales]) => {
                        let (m_scale, v_scale) = (m_scales[block], v_scales[block]);
                        let (m, v) = (&m[at.clone()], &v[at.clone()]);
                        m_wide.iter_mut().zip(m).for_each(|(wide, c)| *wide = code8::of_signed(*c, m_scale));
                        v_wide.iter_mut().zip(v).for_each(|(wide, c)| *wide = code8::of_unsigned(*c, v_scale));
                        (&mut m_wide[..g.len()], &mut v_wide[..g.len()])
                    }
                };
                for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    *w = element(*w, g, m, v, clip, &f);
                }
            }
            match weights {
                Weights::F32(_) => {}
                Weights::Split(hi, lo) => {
                    let halves = hi[at.clone()].iter_mut().zip(&mut lo[at.clone()]);
                    w_wide.iter().zip(halves).for_each(|(w, (hi, lo))| (*hi, *lo) = split(*w));
                }
                Weights::Rounded(w) => {
                    random(&noise, Noise::WEIGHT, first, &mut words);
                    let rounded = w_wide.iter().zip(&words);
                    w[at.clone()].iter_mut().zip(rounded).for_each(|(w, (wide, r))| *w = code8::stochastic(*wide, *r));
                }
            }
            match stored {
                Stored::F32(..) => {}
                Stored::Bf16(m, v) => {
                    random(&noise, Noise::SECOND_MOMENT, first, &mut words);
                    m[at.clone()].iter_mut().zip(&m_wide).for_each(|(m, wide)| *m = Elem::from_f32(*wide));
                    let rounded = v_wide.iter().zip(&words);
                    v[at].iter_mut().zip(rounded).for_each(|(v, (x, r))| *v = code8::stochastic_above_zero(*x, *r));
                }
                Stored::Code8([m, v], [m_scales, v_scales]) => {
                    random(&noise, Noise::SECOND_MOMENT, first, &mut words);
                    let m_scale = code8::scale::<7>(largest(&m_wide[..g.len()]));
                    let v_scale = code8::scale::<8>(largest(&v_wide[..g.len()]));
                    (m_scales[block], v_scales[block]) = (m_scale, v_scale);
                    m[at.clone()].iter_mut().zip(&m_wide).for_each(|(c, x)| *c = code8::signed(*x, m_scale));
                    let rounded = v_wide.iter().zip(&words);
                    v[at].iter_mut().zip(rounded).for_each(|(c, (x, r))| *c = code8::unsigned(*x, v_scale, *r));
                }
            }
        }
    }
}

/// Updates the moments of one element and returns its new weight.
#[inline(always)]
fn element(w: f32, g: f32, m: &mut f32, v: &mut f32, clip: f32, f: &Factors) -> f32 {
    let g = g * clip;
    *m = (g - *m).mul_add(f.one_minus_beta1, *m);
    *v = (g * f.one_minus_beta2).mul_add(g, *v * f.beta2);
    let denom = v.sqrt().mul_add(f.inv_root, f.eps);
    (w * f.keep) - f.step_size * (*m / denom)
}

/// Returns the largest magnitude. The order of a maximum does not affect its bits.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut most = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (most, x) in most.iter_mut().zip(x) {
            *most = if x.abs() > *most { x.abs() } else { *most };
        }
    }
    rest.iter().chain(&most).fold(0.0, |most, x| if x.abs() > most { x.abs() } else { most })
}

/// Writes the random words of the elements from `first` on: element i gets word i % 4 of counter (i / 4, parameter,
/// what).
#[inline(always)]
fn random(noise: &Noise, what: u32, first: usize, words: &mut [u32; BLOCK]) {
    for (i, four) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let group = (first / 4 + i) as u64;
        *four = philox4x32_10(noise.key, [group as u32, (group >> 32) as u32, noise.param, what]);
    }
}
