//! Shares of domains in each batch (Vero's `per_batch_domain_weights`, `verl/utils/dataset/rl_dataset.py`).
//!
//! Each batch has the same number of prompts of each domain. An epoch is as many full batches as the data set has
//! prompts for. At its beginning, each domain begins a new order of its prompts. A domain that has used all its prompts
//! begins another order within the epoch. The state is the number of prompts consumed, as without domains.

use std::collections::BTreeMap;

use crate::rl::group::Group;
use omr_base::config::{DomainWeights, RlConfig};
use omr_base::error::{Error, Result};
use omr_data::rows::samples::packing::order;
use omr_data::rows::{Dataset, Row};

/// The prompts of a domain.
#[derive(Clone, Debug)]
struct Domain {
    name: String,
    /// Indices of its samples.
    samples: Vec<usize>,
    /// Number of its prompts in each generation batch.
    share: u64,
    /// Number of its prompts in each batch that is trained on.
    trained: usize,
    /// The order of its samples in use, and the number of this order.
    order: (u64, Vec<u32>),
}

/// Order of prompts in which each batch has the same share of each domain.
#[derive(Clone, Debug)]
pub struct DomainOrder {
    domains: Vec<Domain>,
    batch: u64,
    batches_per_epoch: u64,
    seed: u64,
    shuffle: bool,
    /// The number of the batch in use, and its prompts: the domain and the position among the prompts of the domain.
    slots: (u64, Vec<(usize, u64)>),
}

/// Returns the number of prompts of each domain in a batch of `batch` prompts: the product with its weight, rounded
/// down. The prompts that are left go to the domains with the largest remainders; of equal ones, to the earlier domain.
pub fn shares(weights: &[f64], batch: usize) -> Vec<usize> {
    // Very large weights have an infinite sum.
    let is_finite = weights.iter().sum::<f64>().is_finite();
    let unit = if is_finite { 1.0 } else { weights.iter().copied().fold(1.0, f64::max) };
    let sum: f64 = weights.iter().map(|weight| weight / unit).sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / unit / sum * batch as f64).collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| *share as usize).collect();
    let mut largest: Vec<usize> = (0..shares.len()).collect();
    largest.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = batch.saturating_sub(shares.iter().sum());
    largest.iter().take(left).for_each(|&domain| shares[domain] += 1);
    assert_eq!(shares.iter().sum::<usize>(), batch, "the shares of {weights:?}");
    shares
}

impl DomainOrder {
    /// Creates the order of the samples of `data`, and adds remarks to `data` about domains that are left out or used more
    /// than once in an epoch. Reads every row once. Errors if no row has a domain with a weight.
    pub fn open(config: &RlConfig, weights: &DomainWeights, data: &mut Dataset) -> Result<DomainOrder> {
        let domains = data.each(|row| row.domain().map(str::to_owned))?;
        let (order, remarks) = DomainOrder::new(config, weights, &domains)?;
        data.remarks.extend(remarks);
        Ok(order)
    }

    /// Creates the order of samples with these `domains`. Returns it with remarks about domains that are left out or used
    /// more than once in an epoch. Errors if no sample has a domain with a weight.
    pub fn new(
        config: &RlConfig,
        weights: &DomainWeights,
        domains: &[Option<String>],
    ) -> Result<(DomainOrder, Vec<String>)> {
        let mut samples: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, domain) in domains.iter().enumerate() {
            samples.entry(domain.as_deref().unwrap_or("none")).or_default().push(i);
        }
        let counted = |samples: &BTreeMap<&str, Vec<usize>>| {
            listed(samples.iter().map(|(name, rows)| format!("{name}: {}", rows.len())))
        };
        let weighted = weights.0.iter().filter(|(_, weight)| *weight > 0.0);
        let (known, missing): (Vec<_>, Vec<_>) = weighted.partition(|(name, _)| samples.contains_key(name.as_str()));
        if known.is_empty() {
            let found = format!("rows of the domains {}", counted(&samples));
            let names = listed(weights.0.iter().map(|(name, _)| name.clone()));
            let expected = format!("rows with one of {names} in the column `ability` or `domain`");
            return Err(Error::input("per_batch_domain_weights", found, expected));
        }
        let mut remarks = Vec::new();
        if !missing.is_empty() {
            let names = listed(missing.iter().map(|(name, _)| name.clone()));
            remarks
                .push(format!("per_batch_domain_weights: no row has the domain {names}; its share goes to the others"));
        }
        let batches_per_epoch = config.full_batches(domains.len());
        let (batch, weights) = (config.gen_batch(), known.iter().map(|(_, weight)| *weight).collect::<Vec<f64>>());
        let trained = shares(&weights, config.train_batch_size);
        let domains: Vec<Domain> = known
            .iter()
            .zip(shares(&weights, batch).into_iter().zip(trained))
            .map(|((name, _), (share, trained))| Domain {
                name: name.clone(),
                samples: samples.remove(name.as_str()).unwrap_or_default(),
                share: share as u64,
                trained,
                order: (u64::MAX, Vec::new()),
            })
            .collect();
        if !samples.is_empty() {
            let left = counted(&samples);
            remarks.push(format!("per_batch_domain_weights: rows of domains without a weight are left out ({left})"));
        }
        for Domain { name, samples, share, trained, .. } in &domains {
            let draws = share * batches_per_epoch;
            if draws > samples.len() as u64 {
                let times = draws.div_ceil(samples.len() as u64);
                let rows = samples.len();
                remarks.push(format!(
                    "per_batch_domain_weights: the domain {name} has {rows} rows and {draws} prompts in an epoch: it \
                     starts again, and a row is used up to {times} times"
                ));
            }
            if *share == 0 && *trained > 0 {
                let expected = format!("a batch with a prompt of the domain {name}: train_batch_size needs {trained}");
                return Err(Error::input("gen_batch_size", batch.to_string(), expected));
            }
            if *share == 0 {
                remarks
                    .push(format!("per_batch_domain_weights: a batch of {batch} has no prompt of the domain {name}"));
            }
        }
        let (seed, shuffle, slots) = (config.seed, config.shuffle, (u64::MAX, Vec::new()));
        Ok((DomainOrder { domains, batch: batch as u64, batches_per_epoch, seed, shuffle, slots }, remarks))
    }

    /// Returns the index of the sample at global position `position`.
    pub fn sample_at(&mut self, position: u64) -> usize {
        let (batch, slot) = (position / self.batch, (position % self.batch) as usize);
        let (seed, shuffle, count) = (self.seed, self.shuffle, self.domains.len() as u64);
        // Each order has a number of its own: those of a batch's prompts follow those of the domains.
        let number = |which: u64, domain: u64| which * (count + 1) + domain;
        if self.slots.0 != batch {
            let of = |(i, domain): (usize, &Domain)| (0..domain.share).map(move |draw| (i, draw)).collect::<Vec<_>>();
            let slots: Vec<(usize, u64)> = self.domains.iter().enumerate().flat_map(of).collect();
            let order = order(seed, number(batch, count), slots.len(), shuffle);
            self.slots = (batch, order.into_iter().map(|at| slots[at as usize]).collect());
        }
        let (which, draw) = self.slots.1[slot];
        let domain = &mut self.domains[which];
        let len = domain.samples.len() as u64;
        let (epoch, within) = (batch / self.batches_per_epoch, batch % self.batches_per_epoch);
        let draw = within * domain.share + draw;
        let orders_per_epoch = (domain.share * self.batches_per_epoch).div_ceil(len);
        let number = number(epoch * orders_per_epoch + draw / len, which as u64);
        if domain.order.0 != number {
            domain.order = (number, order(seed, number, len as usize, shuffle));
        }
        domain.samples[domain.order.1[(draw % len) as usize] as usize]
    }

    /// Returns true if `groups` have too few prompts of the domain of `row` to be a complete batch.
    pub fn lacks(&self, groups: &[Group], row: &Row) -> bool {
        let wanted = self.domains.iter().find(|of| of.name == domain(row));
        wanted.is_some_and(|domain| count(groups, &domain.name) < domain.trained)
    }

    /// Returns the domains of which `groups` have too few prompts, as the end of a sentence.
    pub fn missing(&self, groups: &[Group]) -> String {
        let lacking = self.domains.iter().filter_map(|Domain { name, trained, .. }| {
            let found = count(groups, name);
            (found < *trained).then(|| format!("{name}: {found} of {trained}"))
        });
        format!(" ({})", listed(lacking))
    }
}

/// Returns the domain of a row. A row without one has `none`, as in Vero.
pub fn domain(row: &Row) -> &str {
    row.domain().unwrap_or("none")
}

/// Returns the number of prompts of the domain `name` in `groups`.
pub fn count(groups: &[Group], name: &str) -> usize {
    groups.iter().filter(|group| domain(&group.question.row) == name).count()
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
