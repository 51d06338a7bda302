//! x
use seawall_sim::agents::lie::Lie;
use seawall_sim::agents::{invent, traced};
#[test]
fn x() {
    for seed in 0..25 {
        let mut plan = invent("agents-crash", seed, Some(seawall_model::Millis(20_000))).unwrap();
        plan.lie = Some(Lie::ForgetAttempts);
        plan.thorough = false;
        plan.calm = seawall_model::Millis::from_secs(1_800);
        let (trace, broken) = traced(&plan);
        let Some(broken) = broken else { continue };
        println!("{seed} {:.200}\n{}", broken.says, trace.lines().map(|l| l.chars().take(150).collect::<String>()).collect::<Vec<_>>().join("\n"));
        return;
    }
}
