//! Determines the ranks of a node whose ranks `omr` starts itself. The node is described by flags, or by the environment
//! variables of a system that starts one process on each node.

use super::place::{self, Launcher, Lookup, Place, optional, value};
use omr_base::error::{Error, Result};

/// The systems that start one process on each node, one on each line. The columns contain names of environment variables
/// separated by blanks; the first one that is set counts. If all `signs` are set, the system has started this process.
/// The other columns are the number of nodes (a number, or a list of hosts), this node (its number, or its name in the
/// list of hosts), the hosts beginning with that of rank 0, the port of torchrun, and the number of ranks on each node.
const SYSTEMS: &str = include_str!("nodes.tsv");

/// Port that torchrun uses by default.
const PORT: u64 = 29_500;

/// The part of a command line that describes the nodes of a run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeFlags {
    /// `--gpus`: number of ranks on each node.
    pub ranks: Option<usize>,
    /// `--nodes`: number of nodes.
    pub nodes: Option<usize>,
    /// `--node-rank`: number of this node, from 0.
    pub node_rank: Option<usize>,
    /// `--master`: address and port at which rank 0 listens.
    pub master: Option<String>,
}

impl NodeFlags {
    /// Returns the flags that are set, as on a command line.
    pub fn given(&self) -> Vec<String> {
        let flags = [("--gpus", self.ranks), ("--nodes", self.nodes), ("--node-rank", self.node_rank)];
        let numbers = flags.into_iter().filter_map(|(flag, value)| Some(format!("{flag} {}", value?)));
        numbers.chain(self.master.iter().map(|master| format!("--master {master}"))).collect()
    }

    /// Returns the position of this node's first rank, which starts the other `local_size` - 1 ranks of the node. If the
    /// run has one node, `local_size` is `size`. A flag takes precedence over a variable of `env`. Errors if flags or
    /// variables show that there are several nodes, but do not say enough to start their ranks.
    pub fn place(&self, env: Lookup) -> Result<Place> {
        let mut systems = SYSTEMS.lines().skip(1).filter_map(|row| row.split('\t').collect::<Vec<_>>().try_into().ok());
        let system = systems.find(|row: &[&str; 7]| row[1].split(' ').all(|name| value(env, name).is_some()));
        let [name, signs, nodes, node_rank, hosts, port, ranks] = system.unwrap_or_default();
        let hosts = items(&value(env, hosts).unwrap_or_default());
        // PET_NPROC_PER_NODE may also be "auto" or "gpu", which is no number of ranks.
        let ranks = self.ranks.or_else(|| value(env, ranks)?.parse().ok());
        let count = match (self.nodes, value(env, nodes).filter(|text| text.starts_with('['))) {
            (Some(nodes), _) => Some(nodes),
            (None, Some(list)) => Some(items(&list).len().max(1)),
            (None, None) => optional(env, nodes, 1..=1 << 20)?.map(|nodes| nodes as usize),
        };
        let (round, run) = (place::restarts(env)?, value(env, "TORCHELASTIC_RUN_ID").unwrap_or_default());
        let (rank, size, local_rank, local_size) = (0, ranks.unwrap_or(1), 0, ranks.unwrap_or(1));
        let (address, launcher) = ("127.0.0.1".to_owned(), Launcher::Omr);
        let one = Place { rank, size, local_rank, local_size, address, port: None, round, run, launcher };
        let is_plain = *self == NodeFlags { ranks: self.ranks, ..NodeFlags::default() };
        if count == Some(1) || system.is_none() && is_plain {
            return Ok(one);
        }
        let last = count.unwrap_or(1 << 20) - 1;
        let named = value(env, node_rank).and_then(|name| hosts.iter().position(|host| *host == name));
        let index = match self.node_rank.or(named) {
            Some(index) if index > last => {
                return Err(Error::input("--node-rank", index.to_string(), format!("a whole number from 0 to {last}")));
            }
            Some(index) => Some(index),
            None => optional(env, node_rank, 0..=last as u64)?.map(|index| index as usize),
        };
        let master = match (&self.master, hosts.first()) {
            (Some(text), _) => Some(host_and_port(text)?),
            (None, Some(host)) => {
                let port = optional(env, port, 1..=u64::from(u16::MAX) - 1)?.unwrap_or(PORT) + 1;
                Some((host.clone(), port as u16))
            }
            (None, None) => None,
        };
        let absent = [
            ("--nodes N", count.is_none()),
            ("--node-rank R", index.is_none()),
            ("--master HOST:PORT", master.is_none()),
            ("--gpus RANKS_PER_NODE", ranks.is_none()),
        ];
        let (Some(count), Some(index), Some((address, port)), Some(ranks)) = (count, index, master, ranks) else {
            let mut set: Vec<String> = Vec::new();
            for name in [signs, nodes, node_rank].iter().flat_map(|names| names.split(' ')) {
                let variable = value(env, name).map(|value| format!("{name}={value}"));
                set.extend(variable.filter(|variable| !set.contains(variable)));
            }
            let from = if set.is_empty() { String::new() } else { format!(" ({name})") };
            let found = [&set.join(" "), from.as_str(), " ", &self.given().join(" ")].concat().trim().to_owned();
            let add: Vec<&str> = absent.into_iter().filter(|(_, is_absent)| *is_absent).map(|(flag, _)| flag).collect();
            let hint = format!("add {}, or --nodes 1 if this process is the whole run", add.join(" "));
            return Err(Error::input_hint("the nodes of the run", found, "all that starts the ranks of a node", hint));
        };
        Ok(Place { rank: index * ranks, size: count * ranks, address, port: Some(port), ..one })
    }
}

/// Returns the items of a list in JSON, or of one whose items are separated by commas or white space.
fn items(list: &str) -> Vec<String> {
    let parts = list.split(|c: char| c.is_whitespace() || ",[]\"".contains(c));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Splits `HOST:PORT`. An IPv6 address has brackets.
fn host_and_port(text: &str) -> Result<(String, u16)> {
    let parts =
        text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok().filter(|port| *port > 1)?)));
    let is_host =
        |host: &str| !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    let expected = "HOST:PORT, such as node0:29500 or [fd00::1]:29500";
    let (host, port) =
        parts.filter(|(host, _)| is_host(host)).ok_or_else(|| Error::input("--master", text, expected))?;
    Ok((place::bare(host), port))
}
