//! Tests that a prompt and its images are computed once for all its responses. The reference is a case in which every
//! response has its own question, so its prompt is computed again.

use std::sync::Arc;

use omr_base::config::RolloutConfig;
use omr_base::config::{Dtype, LossMode, RlConfig};
use omr_base::philox::{Purpose, Random};
use omr_base_tests::seed::seed;
use omr_data::image::{Grid, ImageInput};
use omr_data::rows::{Row, Shape};
use omr_model::engine::Prompt;
use omr_model::nn::{CheckpointPolicy, Grads, LayerPolicy, Model, Policy};
use omr_model::rollout::generate::Question;
use omr_model_tests::models;
use omr_runtime::device::{Device, Isa, Kind, Plan, Region, Target};
use omr_runtime::ops::policy_loss;
use omr_runtime::ranks::OneRank;
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::emu;
use omr_train::rl::experience::Experience;
use omr_train::rl::group::{Group, responses, sequences};
use omr_train::rl::update::{self, Learner, MicroBatch, MiniBatch, Reference, UpdateResults};
use omr_train::training::plan::{Training, blank};
use omr_train::training::step::Computed;

use super::bound::model;

/// Images of 8 x 8 patches. Sums over patches end at image borders, so a border between chunks changes no bit.
const SIDE: u32 = 8;

/// Questions with the given numbers of images, and four responses to each.
struct Case {
    groups: Vec<Group>,
}

const RESPONSES: usize = 4;

impl Case {
    fn new(images: &[usize]) -> Case {
        Case::numbered(images, images.len() as u64)
    }

    fn numbered(images: &[usize], number: u64) -> Case {
        let config = model(false);
        let mut random = Random::new(seed(), Purpose::Test, number);
        let mut groups = Vec::new();
        for (index, &count) in images.iter().enumerate() {
            let mut below = |n: usize| random.below(n as u64) as usize;
            let text = |n: usize, below: &mut dyn FnMut(usize) -> usize| -> Vec<u32> {
                (0..n).map(|_| below(500) as u32).collect()
            };
            let mut ids = text(3, &mut below);
            let mut images = Vec::new();
            let of = config.media.as_ref().unwrap().ids;
            for _ in 0..count {
                ids.push(of.start);
                ids.resize(ids.len() + (SIDE * SIDE / 4) as usize, of.image);
                ids.push(of.end);
                let pixels = (0..SIDE * SIDE * 14 * 14 * 3).map(|_| below(256) as u8).collect();
                images.push(Arc::new(ImageInput::image([SIDE, SIDE], pixels)));
            }
            ids.extend(text(2, &mut below));
            let mut experience = Vec::new();
            for advantage in [1.0, -0.5, -1.25, 0.75] {
                let response = text(3 + below(9), &mut below);
                let made = Experience::of_tokens(&ids, &response, vec![-1.0; response.len()]);
                experience.push(Experience { advantage, ..made });
            }
            let prompt = Prompt { pixels: images, ..Prompt::text(ids) };
            let question = Question { row: Row::default(), prompt: Arc::new(prompt) };
            groups.push(Group::made_up(index, question, experience));
        }
        Case { groups }
    }

    /// Returns a case of prompts without images, with the given numbers of tokens of each prompt and of its responses.
    fn texts(groups: &[(usize, &[usize])]) -> Case {
        let mut random = Random::new(seed(), Purpose::Test, 99);
        let mut text = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(500) as u32).collect() };
        let mut group = |(index, (prompt, responses)): (usize, &(usize, &[usize]))| {
            let ids = text(*prompt);
            let made = |n: &usize| Experience::of_tokens(&ids, &text(*n), vec![-1.0; *n]);
            let experience = responses.iter().map(made).map(|e| Experience { advantage: 1.0, ..e }).collect();
            Group::made_up(
                index,
                Question { row: Row::default(), prompt: Arc::new(Prompt::text(ids.clone())) },
                experience,
            )
        };
        Case { groups: groups.iter().enumerate().map(&mut group).collect() }
    }

    /// Returns the case with the same responses, but with a separate copy of the question for every response.
    fn apart(&self) -> Case {
        let pairs = self.groups.iter().flat_map(|group| group.experience.iter().map(|e| (&group.question, e)));
        let own = |(i, (question, e)): (usize, (&Arc<Question>, &Experience))| {
            Group::made_up(i, (**question).clone(), vec![e.clone()])
        };
        Case { groups: pairs.enumerate().map(own).collect() }
    }

    fn batch(&self) -> impl Iterator<Item = &Experience> {
        self.groups.iter().flat_map(|group| &group.experience)
    }

    fn batch_mut(&mut self) -> impl Iterator<Item = &mut Experience> {
        self.groups.iter_mut().flat_map(|group| &mut group.experience)
    }

    fn longest(&self) -> usize {
        self.batch().map(|e| e.input_ids.len()).max().unwrap()
    }
}

/// Gradients by parameter. The flag is true for parameters of the vision tower.
type Gradients = Vec<(bool, Vec<f32>)>;

struct Bench {
    dev: Device,
    model: Model,
    policy: Policy,
}

impl Bench {
    fn new(mut dev: Device, dtype: DType) -> Bench {
        let model = Model::init(&mut dev, model(false), dtype, 7).unwrap();
        Bench { dev, model, policy: Policy::default() }
    }

    fn cpu(dtype: DType) -> Bench {
        Bench::by(Isa::detect(), dtype)
    }

    fn by(isa: Isa, dtype: DType) -> Bench {
        Bench::new(Device::cpu(&Plan::uniform(256 << 20), 2, isa).unwrap(), dtype)
    }

    fn config(&self, micro_batch_tokens: usize) -> RlConfig {
        let rollout = RolloutConfig { n: RESPONSES, ..RolloutConfig::default() };
        let [clip_ratio_low, clip_ratio_high] = [0.2; 2];
        let (dtype, loss_mode, max_response_length) = (Dtype::Bf16, LossMode::Vanilla, 16);
        RlConfig {
            dtype,
            loss_mode,
            clip_ratio_low,
            clip_ratio_high,
            micro_batch_tokens,
            max_response_length,
            rollout,
            ..RlConfig::default()
        }
    }

    fn log_probs(&mut self, case: &Case, tokens: usize) -> Vec<Vec<u32>> {
        self.log_probs_of(case, tokens).iter().map(|of| of.iter().map(|x| x.to_bits()).collect()).collect()
    }

    fn log_probs_of(&mut self, case: &Case, tokens: usize) -> Vec<Vec<f32>> {
        let (all, by) = (responses(&case.groups), Reference { model: &self.model, policy: self.policy });
        update::ref_log_prob(&mut self.dev, by, &case.groups, &all, tokens).unwrap()
    }

    /// Returns the case with the old log-probs of the current policy. The terms of a group's loss then partly cancel.
    fn on_policy(&mut self, mut case: Case) -> Case {
        let found = self.log_probs_of(&case, 1 << 20);
        for (e, log_probs) in case.batch_mut().zip(found) {
            e.old_log_prob = log_probs;
        }
        case
    }

    fn gradients(
        &mut self,
        case: &Case,
        config: &RlConfig,
        levels: impl Into<CheckpointPolicy>,
    ) -> (Gradients, UpdateResults) {
        let Bench { dev, model, policy } = self;
        let marks = [Region::Overlay, Region::Workspace].map(|region| dev.mark(region));
        let mut grads = Grads::new(dev, &model.layout).unwrap();
        let stats = policy_loss::stats(dev, Region::Overlay).unwrap();
        let learner = Learner { model, policy: *policy, config, levels: levels.into(), step: 3 };
        let done = update::accumulate(dev, learner, &mut grads, &case.groups, stats).unwrap();
        let seen = MiniBatch::new(config, learner.step, &case.groups, 1).results(dev, done, stats).unwrap();
        let pieces = model.layout.pieces().filter_map(|(id, piece, named)| {
            let tensor = grads.get(id)?;
            let values = models::piece::<f32>(dev, &model.layout.params[id], tensor, piece);
            Some((named.name.starts_with("visual."), values))
        });
        let found = pieces.collect();
        marks.into_iter().for_each(|mark| dev.release(mark));
        (found, seen)
    }
}

/// Returns the norm of the difference, relative to the norm of `a`.
fn apart(a: &Gradients, b: &Gradients) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b));
        pairs.map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum::<f64>().sqrt()
    };
    assert_eq!(a.len(), b.len());
    sum(&|a, b| (a - b).powi(2)) / sum(&|a, _| a * a)
}

fn tower(gradients: &Gradients) -> Gradients {
    gradients.iter().filter(|(tower, _)| *tower).cloned().collect()
}

const CASES: [&[usize]; 4] = [&[1], &[2], &[1, 0, 2], &[0, 0]];

#[test]
fn log_probs_are_those_of_images_computed_for_each_response() {
    for dtype in [DType::F32, DType::Bf16] {
        let mut bench = Bench::cpu(dtype);
        for case in CASES.map(Case::new) {
            let want = bench.log_probs(&case.apart(), case.longest());
            for tokens in [1 << 20, 3 * case.longest(), case.longest()] {
                assert_eq!(bench.log_probs(&case, tokens), want, "{dtype:?}, {tokens} tokens");
            }
        }
    }
}

/// Prompts that end before, at and after the border of a block and of a chunk.
#[test]
fn log_probs_after_shared_prompts_are_those_of_whole_sequences() {
    let many = [1, 130, 7, 2, 126, 3, 1, 12, 5, 60, 4, 1, 9, 2, 8, 30];
    for dtype in [DType::F32, DType::Bf16] {
        let mut bench = Bench::cpu(dtype);
        let groups: [&[(usize, &[usize])]; 4] = [
            &[(127, &[1, 2]), (128, &[300, 1]), (129, &[4]), (1, &[129, 3])],
            &[(129, &many)],
            &[(2047, &[5, 1]), (2048, &[1, 6]), (2049, &[2, 3])],
            &[(4100, &[70, 2])],
        ];
        for groups in groups {
            let case = Case::texts(groups);
            let want = bench.log_probs(&case.apart(), case.longest());
            assert_eq!(bench.log_probs(&case, 1 << 20), want, "{dtype:?} {groups:?}");
        }
    }
}

#[test]
fn gradients_in_f32_are_those_of_images_computed_for_each_response() {
    let mut bench = Bench::cpu(DType::F32);
    for case in CASES.map(Case::new) {
        let case = bench.on_policy(case);
        let whole = bench.config(1 << 20);
        let (want, _) = bench.gradients(&case.apart(), &whole, LayerPolicy::All);
        for tokens in [1 << 20, 2 * case.longest()] {
            let config = bench.config(tokens);
            let (found, seen) = bench.gradients(&case, &config, LayerPolicy::All);
            assert_eq!(seen.responses, case.batch().count());
            let far = apart(&want, &found);
            assert!(far <= 1e-5, "{far} in micro-batches of {tokens} tokens");
        }
    }
}

#[test]
fn gradients_in_bf16_are_as_far_from_those_in_f32_as_before() {
    let mut narrow = Bench::cpu(DType::Bf16);
    let mut wide = Bench::cpu(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    narrow.model.save(&mut narrow.dev, dir.path(), DType::Bf16).unwrap();
    wide.model = Model::load(&mut wide.dev, dir.path(), DType::F32).unwrap();
    let (mut all, mut towers) = (Vec::new(), Vec::new());
    for case in (0..24).map(|i| Case::numbered(CASES[i % 3], i as u64)) {
        let (case, config) = (narrow.on_policy(case), narrow.config(1 << 20));
        let (exact, _) = wide.gradients(&case, &config, LayerPolicy::All);
        let (old, _) = narrow.gradients(&case.apart(), &config, LayerPolicy::All);
        let (new, _) = narrow.gradients(&case, &config, LayerPolicy::All);
        all.push(apart(&exact, &new) / apart(&exact, &old));
        towers.push(apart(&tower(&exact), &tower(&new)) / apart(&tower(&exact), &tower(&old)));
    }
    // The ratios compare the rounding errors of one pass over the sum with those of several passes, whose errors partly
    // cancel. Over seven seeds the mean ratios were 1.008 to 1.039 for all parameters and, over four, 1.013 to 1.073 for
    // the tower. The limits are twice as far from 1.
    for (what, ratios, most) in [("all parameters", all, 1.078), ("the tower's", towers, 1.146)] {
        let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        println!("{what}: new distance of old {mean:.4}");
        assert!(mean <= most, "{what}: {ratios:?}");
    }
}

#[test]
fn kernels_share_images_as_the_cpu_does() {
    let (mut bench, case) = (Bench::new(emu(), DType::Bf16), Case::new(CASES[2]));
    let want = bench.log_probs(&case.apart(), case.longest());
    assert_eq!(bench.log_probs(&case, 2 * case.longest()), want);
}

#[test]
fn of_responses_that_move_nothing_one_in_eight_runs() {
    let mut bench = Bench::cpu(DType::F32);
    let mut case = Case::new(&[1; 40]);
    let config = bench.config(1 << 20);
    // Only the first question has nonzero advantages.
    case.groups[1..].iter_mut().flat_map(|group| &mut group.experience).for_each(|e| e.advantage = 0.0);
    let (found, seen) = bench.gradients(&case, &config, LayerPolicy::All);
    let expected = (case.batch().count() - RESPONSES) / update::IDLE_PER_MEASURED as usize;
    println!("{} of {} responses", seen.responses - RESPONSES, case.batch().count() - RESPONSES);
    // Binomial distribution with 156 trials and probability 1/8: five standard deviations are 21.
    assert!((seen.responses - RESPONSES).abs_diff(expected) <= 20, "{}", seen.responses);
    // Responses that did not run count in the denominator of the loss and add nothing to a gradient.
    let moving = Case { groups: case.groups[..1].to_vec() };
    let (alone, few) = bench.gradients(&moving, &config, LayerPolicy::All);
    assert_eq!(few.responses, RESPONSES);
    let share = moving.batch().count() as f64 / case.batch().count() as f64;
    let scaled: Gradients =
        alone.iter().map(|(tower, g)| (*tower, g.iter().map(|x| (f64::from(*x) * share) as f32).collect())).collect();
    assert!(apart(&scaled, &found) < 1e-5);
    assert!((few.stats.loss * share - seen.stats.loss).abs() < 1e-9);
    // The selected responses differ from step to step. With a loss term that affects all responses, all of them run.
    let all = RlConfig { entropy_coeff: 1e-3, ..bench.config(1 << 20) };
    assert_eq!(bench.gradients(&case, &all, LayerPolicy::All).1.responses, case.batch().count());
    case.batch_mut().for_each(|e| e.advantage = 0.0);
    let (none, _) = bench.gradients(&case, &config, LayerPolicy::All);
    assert_eq!(none.len(), bench.model.layout.pieces().count(), "every parameter has its gradient");
    assert!(none.iter().all(|(_, g)| g.iter().all(|x| *x == 0.0)));
}

#[test]
fn a_response_that_was_cut_is_left_out_of_the_loss() {
    let mut bench = Bench::cpu(DType::F32);
    let mut case = Case::new(&[1, 0]);
    case.groups[0].experience[1].is_masked = true;
    let mut without = Case { groups: case.groups.clone() };
    without.groups[0].experience.remove(1);
    for entropy_coeff in [0.0, 1e-3] {
        let config = RlConfig { entropy_coeff, ..bench.config(1 << 20) };
        let [found, want] = [&case, &without].map(|case| bench.gradients(case, &config, LayerPolicy::All));
        assert_eq!(found, want);
    }
    case.batch_mut().for_each(|e| e.is_masked = true);
    let config = RlConfig { entropy_coeff: 1e-3, ..bench.config(1 << 20) };
    let (none, seen) = bench.gradients(&case, &config, LayerPolicy::All);
    assert_eq!(none.len(), bench.model.layout.pieces().count(), "every parameter has its gradient");
    assert!(none.iter().all(|(_, g)| g.iter().all(|x| *x == 0.0)));
    assert_eq!([seen.stats.loss, seen.stats.pg_loss, seen.stats.pg_clipfrac], [0.0; 3]);
    assert!(seen.stats.entropy.is_finite());
}

/// Counts of an update: tokens, arithmetic, and the arithmetic of the vision tower's first op. The last count shows how
/// often the images were computed.
struct Counts {
    tokens: usize,
    flops: f64,
    patches: f64,
}

/// Counts an update with `prompts` questions of `text` tokens and an image of `grid`, each with `n` answers of
/// `response` tokens. Returns the counts if every answer has its own copy of the question, and the counts if the
/// answers share it.
fn counts(large: bool, [prompts, n]: [usize; 2], [text, response]: [usize; 2], grid: Grid, room: usize) -> [Counts; 2] {
    let places = grid.patches() / 4;
    let shape = Shape { tokens: places + 2 + text, targets: 0, grids: &[grid] };
    let sample = blank(&model(large), shape);
    let prompt = Arc::new(Prompt { pixels: sample.images, ..Prompt::text(sample.input_ids) });
    let made = Experience::of_tokens(&prompt.token_ids, &vec![0; response], vec![0.0; response]);
    let experience = vec![Experience { advantage: 1.0, ..made }; n];
    let question = Question { row: Row::default(), prompt };
    let group = |index| Group::made_up(index, question.clone(), experience.clone());
    let case = Case { groups: (0..prompts).map(group).collect() };
    [case.apart(), case].map(|case| {
        let config = RlConfig { micro_batch_tokens: room, ..RlConfig::default() };
        let target = if large { Target::gpu(Kind::Cuda) } else { Target::cpu(2) };
        let mut training =
            Training::new(model(large), config.dtype, config.optimizer.clone(), target, OneRank::ALONE).unwrap();
        let (mut grads, _) = training.gradients().unwrap();
        let Training { dev, model, .. } = &mut training;
        let stats = policy_loss::stats(dev, Region::Overlay).unwrap();
        let learner =
            Learner { model, policy: Policy::default(), config: &config, levels: CheckpointPolicy::default(), step: 0 };
        let cut = MiniBatch::new(&config, 0, &case.groups, 1).micro_batches(room);
        let of = |part: &MicroBatch| Computed::micro_batch(&sequences(&case.groups, &part.responses)).tokens;
        let tokens = cut.iter().map(of).sum();
        dev.take_work();
        update::accumulate(dev, learner, &mut grads, &case.groups, stats).unwrap();
        let (work, vision) = (dev.take_work(), model.config.media.as_ref().unwrap());
        let once = 2.0 * (vision.tower.hidden_size * vision.grid.patch_len()) as f64;
        Counts {
            tokens,
            flops: work.iter().map(|w| w.flops).sum(),
            patches: work.iter().filter(|w| w.op == "patch_embed").map(|w| w.flops / once).sum(),
        }
    })
}

fn show(what: &str, [before, after]: &[Counts; 2]) {
    println!(
        "{what}: {} and {} tokens, {:.3e} and {:.3e} FLOP, {} and {} patches through the tower",
        before.tokens, after.tokens, before.flops, after.flops, before.patches, after.patches
    );
}

#[test]
fn the_tower_sees_a_group_once_and_again_where_it_goes_on() {
    // Four groups of 4, in micro-batches of 8, 6 and 3 responses. A group that continues in the next micro-batch is
    // computed once more. Prompts have 16 tokens, 4 of them from the image, and responses have 5.
    for (prompts, responses, again) in [(2, 8, 0.0), (2, 6, 1.0), (1, 3, 4.0)] {
        let counts = counts(false, [4, 4], [10, 5], Grid::image(4, 4), prompts * 16 + responses * 5);
        show("digits", &counts);
        assert_eq!(counts[0].patches, 16.0 * 16.0);
        assert_eq!(counts[1].patches, (4.0 + again) * 16.0);
    }
}

#[test]
#[ignore = "by hand, for bench/LOG.md: what an update of the 7B costs"]
fn an_update_of_7b_is_less() {
    // The prompt has 1,000 tokens, 864 of them from one image. The response has 2,000 tokens.
    let large = counts(true, [128, 16], [134, 2000], Grid::image(48, 72), 33_792);
    show("7B, 128 x 16", &large);
    let small = counts(false, [64, 8], [30, 20], Grid::image(2, 4), 4096);
    show("digits, 64 x 8", &small);
    for [before, after] in [&large, &small] {
        assert!(after.flops < before.flops && after.tokens < before.tokens);
    }
    // A group of 33,000 tokens fits into a micro-batch.
    assert_eq!(large[1].patches, 128.0 * 48.0 * 72.0);
}
