//! Tests what a process does in the environment of each system that starts one process on each node.

use omr_base::error::Result;
use omr_runtime::ranks::{NodeFlags, Place, find};

/// Returns the first rank of a node for flags such as `--gpus 8` and variables such as `RANK=1`, each separated by `;`.
fn place(flags: &str, variables: &str) -> Result<Place> {
    let words: Vec<&str> = flags.split(' ').collect();
    let flag = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1].to_owned());
    let number = |name| flag(name).map(|text| text.parse().unwrap());
    let (ranks, nodes, node_rank) = (number("--gpus"), number("--nodes"), number("--node-rank"));
    let flags = NodeFlags { ranks, nodes, node_rank, master: flag("--master") };
    let set = || variables.split(';').filter_map(|set| set.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned()));
    let env = |name: &str| find(name, set());
    assert_eq!(Place::of(&env)?, None, "{variables}: a launcher");
    flags.place(&env)
}

/// Describes a place as `first rank-last rank of size at address:port`.
fn described(flags: &str, variables: &str) -> String {
    match place(flags, variables) {
        Ok(of) if of.size == of.local_size => format!("{} on one node", of.size),
        Ok(of) => {
            let (last, port) = (of.rank + of.local_size - 1, of.port.unwrap());
            format!("{}-{last} of {} at {}:{port}", of.rank, of.size, of.address)
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{error}");
            error.to_string()
        }
    }
}

const KUBEFLOW: &str = "PET_NNODES=2;PET_NODE_RANK=1;PET_NPROC_PER_NODE=8;PET_MASTER_ADDR=t-0.t;PET_MASTER_PORT=29400";
const SKYPILOT: &str = "SKYPILOT_NODE_RANK=1;SKYPILOT_NUM_NODES=2;SKYPILOT_NODE_IPS=10.0.0.1\n10.0.0.2;SKYPILOT_NUM_GPUS_PER_NODE=8;\
     RAY_JOB_ID=01000000";
const SAGEMAKER: &str = r#"SM_HOSTS=["algo-1","algo-2"];SM_CURRENT_HOST=algo-2;SM_NUM_GPUS=8"#;
const VOLCANO: &str = "VC_TASK_INDEX=1;VK_TASK_INDEX=1;VC_NODE_NUM=2;VC_NODE_HOSTS=j-node-0.j,j-node-1.j";
const PODS: &str = "RANK=1;WORLD_SIZE=2;MASTER_ADDR=job-master-0;MASTER_PORT=23456";

/// Each system: flags, variables, and the ranks of the node or parts of the refusal.
#[test]
fn each_system_starts_the_right_ranks_or_names_the_flags_to_add() {
    let rows = [
        ("", "", "1 on one node"),
        ("--gpus 8", "", "8 on one node"),
        ("--gpus 8 --nodes 4 --node-rank 3 --master node0:29500", "", "24-31 of 32 at node0:29500"),
        ("--gpus 1 --nodes 2 --node-rank 1 --master [fd77::1]:29500", "", "1-1 of 2 at fd77::1:29500"),
        ("--gpus 8 --nodes 1 --node-rank 0 --master node0:29500", "", "8 on one node"),
        ("", KUBEFLOW, "8-15 of 16 at t-0.t:29401"),
        ("--gpus 4", KUBEFLOW, "4-7 of 8 at t-0.t:29401"),
        ("", "PET_NNODES=1;PET_NODE_RANK=0;PET_NPROC_PER_NODE=4", "4 on one node"),
        (
            "--gpus 2",
            "PET_NNODES=2;PET_NODE_RANK=0;PET_NPROC_PER_NODE=auto;MASTER_ADDR=a;MASTER_PORT=1",
            "0-1 of 4 at a:2",
        ),
        ("--gpus 8", PODS, "8-15 of 16 at job-master-0:23457"),
        ("--gpus 8", "RANK=0;WORLD_SIZE=1", "8 on one node"),
        ("--gpus 8", SKYPILOT, "8-15 of 16 at 10.0.0.1:29501"),
        ("", "SKYPILOT_NODE_RANK=0;SKYPILOT_NUM_NODES=1;SKYPILOT_NODE_IPS=10.0.0.1;RAY_JOB_ID=1", "1 on one node"),
        ("--gpus 8", SAGEMAKER, "8-15 of 16 at algo-1:29501"),
        ("", r#"SM_HOSTS=["algo-1"];SM_CURRENT_HOST=algo-1"#, "1 on one node"),
        ("--gpus 8", VOLCANO, "8-15 of 16 at j-node-0.j:29501"),
        ("--gpus 8 --nodes 2 --master w-0.w:29500", "JOB_COMPLETION_INDEX=1", "8-15 of 16 at w-0.w:29500"),
        ("--nodes 1", "JOB_COMPLETION_INDEX=5", "1 on one node"),
        ("", "SM_HOSTS=[];SM_CURRENT_HOST=a", "1 on one node"),
        ("--gpus 8 --nodes 2 --node-rank 1 --master h:29500", "RAY_ADDRESS=h:6379", "8-15 of 16 at h:29500"),
        ("--gpus 8 --nodes 1", "RAY_JOB_ID=01000000", "8 on one node"),
        ("", PODS, "found RANK=1 WORLD_SIZE=2 (PyTorchJob)|(add --gpus RANKS_PER_NODE, or --nodes 1"),
        ("", "PET_NNODES=2;PET_NODE_RANK=1", "(Kubeflow)|(add --master HOST:PORT --gpus RANKS_PER_NODE, or"),
        ("--gpus 8", "PET_NNODES=1:4;PET_RDZV_ENDPOINT=a:1", "environment variable PET_NNODES: found 1:4"),
        ("", SKYPILOT, "SKYPILOT_NODE_RANK=1 SKYPILOT_NUM_NODES=2 (SkyPilot)|(add --gpus RANKS_PER_NODE, or"),
        ("", SAGEMAKER, "(SageMaker)|(add --gpus RANKS_PER_NODE, or"),
        ("", VOLCANO, "VC_TASK_INDEX=1 VC_*_NUM=2 (Volcano)|(add --gpus RANKS_PER_NODE, or"),
        (
            "--gpus 8",
            "VC_TASK_INDEX=0;VC_MASTER_NUM=1;VC_WORKER_NUM=3",
            "(Volcano)|(add --nodes N --master HOST:PORT, or",
        ),
        (
            "--gpus 8",
            "JOB_COMPLETION_INDEX=0",
            "(an Indexed Job) --gpus 8|(add --nodes N --master HOST:PORT, or --nodes 1",
        ),
        ("", "RAY_JOB_ID=01000000", "RAY_JOB_ID=01000000 (Ray)|add --nodes N --node-rank R --master HOST:PORT --gpus"),
        ("--gpus 8", "RAY_ADDRESS=auto", "RAY_ADDRESS=auto (Ray)"),
        (
            "--gpus 8 --nodes 2",
            "",
            "the nodes of the run: found --gpus 8 --nodes 2|(add --node-rank R --master HOST:PORT",
        ),
        ("--gpus 8 --node-rank 1", "", "add --nodes N --master HOST:PORT"),
        (
            "--gpus 8 --nodes 2 --node-rank 2 --master a:2",
            "",
            "--node-rank: found 2, expected a whole number from 0 to 1",
        ),
        ("--gpus 8", "SKYPILOT_NODE_RANK=2;SKYPILOT_NUM_NODES=2", "environment variable SKYPILOT_NODE_RANK: found 2"),
        ("--gpus 8", r#"SM_HOSTS=["a","b"];SM_CURRENT_HOST=c"#, "environment variable SM_CURRENT_HOST: found c"),
        ("--gpus 8 --nodes 2 --node-rank 1 --master node0", "", "--master: found node0, expected HOST:PORT"),
        ("--gpus 8 --nodes 2 --node-rank 1 --master fd77::1:29500", "", "--master: found fd77::1:29500"),
    ];
    for (flags, variables, expected) in rows {
        let found = described(flags, variables);
        assert!(expected.split('|').all(|part| found.contains(part)), "{flags} {variables}\n  {found}\n  {expected}");
    }
}
