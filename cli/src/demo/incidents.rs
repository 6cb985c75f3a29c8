//! What goes wrong inside functions: trouble and attacks that show in their logs alone.
//!
//! [`KINDS`] has the same form as the attacks on accounts. Each adds invocations to a function for some
//! twenty seconds: failing ones, far too many, ones that run into their time or memory limit, or ones that
//! write what no function should.

use super::invocation::Ending;
use super::scene::{Kind, Plan, Scene};

/// Every incident, in the order in which they come.
pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        name: "error_spike",
        title: "A function fails on most calls",
        expect: &["Function fails again and again"],
        plan: error_spike,
    },
    Kind {
        name: "secret_in_log",
        title: "A function writes a secret access key to its log",
        expect: &["Secret was written to the log of a function"],
        plan: secret_in_log,
    },
    Kind {
        name: "invocation_surge",
        title: "A function is called thirty times as often as usual",
        expect: &["Function is invoked unusually often"],
        plan: invocation_surge,
    },
    Kind {
        name: "timeout_burst",
        title: "A function runs into its time limit again and again",
        expect: &["Function runs into its time limit again and again"],
        plan: timeout_burst,
    },
    Kind {
        name: "env_access",
        title: "Code in a function reads the environment of its process",
        expect: &["Function spoke of the environment of its process"],
        plan: env_access,
    },
    Kind {
        name: "out_of_memory",
        title: "A function is killed for want of memory",
        expect: &["Invocation ran out of memory"],
        plan: out_of_memory,
    },
];

/// The functions that incidents happen to; the decoys keep to the others, so that neither spoils the other's counts.
const STRUCK: [usize; 4] = [0, 1, 2, 7];

/// `count` invocations of `function` over `seconds`.
pub(crate) fn calls(
    scene: &mut Scene<'_>,
    function: usize,
    (count, seconds): (i64, i64),
    ending: Ending,
    say: Option<&str>,
) -> Plan {
    let mut line_ids = Vec::new();
    let mut end = 0;
    for i in 0..count {
        let millis =
            (scene.start + 1) * 1_000 + i * seconds * 1_000 / count + scene.rng.range(0, 300);
        let (ids, last) = scene.functions.invoke(function, millis, ending, say);
        line_ids.extend(ids);
        end = end.max(last);
    }
    Plan {
        line_ids,
        lines_end: end / 1_000,
        account: scene.org.accounts[0].id.into(),
        actor: scene.functions.name(function).into(),
        ..Plan::default()
    }
}

fn struck(scene: &mut Scene<'_>, load: (i64, i64), ending: Ending, say: Option<&str>) -> Plan {
    let function = *scene.rng.pick(&STRUCK);
    calls(scene, function, load, ending, say)
}

fn error_spike(scene: &mut Scene<'_>) -> Plan {
    let function = *scene.rng.pick(&[0, 2, 7]);
    calls(scene, function, (40, 20), Ending::Error, None)
}

fn invocation_surge(scene: &mut Scene<'_>) -> Plan {
    struck(scene, (500, 25), Ending::Success, None)
}

fn timeout_burst(scene: &mut Scene<'_>) -> Plan {
    // One with a short limit, or the viewer waits.
    let function = *scene.rng.pick(&[1, 7]);
    calls(scene, function, (14, 12), Ending::Timeout, None)
}

fn out_of_memory(scene: &mut Scene<'_>) -> Plan {
    struck(scene, (4, 10), Ending::OutOfMemory, None)
}

fn secret_in_log(scene: &mut Scene<'_>) -> Plan {
    let secret = scene.rng.base32(40);
    let line = format!("settings: region=us-east-1 AWS_SECRET_ACCESS_KEY={secret}");
    struck(scene, (2, 6), Ending::Success, Some(&line))
}

fn env_access(scene: &mut Scene<'_>) -> Plan {
    let line = "open /proc/self/environ: 1433 bytes read";
    struck(scene, (2, 6), Ending::Success, Some(line))
}
