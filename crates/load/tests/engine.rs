//! The engine model keeps its promises: every job ends once, memory holds, the same
//! seed gives the same events, and steps take as long as the law says.

use proptest::prelude::*;
use seawall_load::engine::{Engine, Event, Full, Job, Spec};
use seawall_load::pace::Pace;
use seawall_load::rng::Rng;
use seawall_model::{At, Tokens};

fn job(id: u64, prompt: u64, output: u64) -> Job {
    Job { id, prompt: Tokens(prompt), prefix: Box::default(), output: Tokens(output) }
}

/// Runs until idle; gives each event with its time.
fn drain(engine: &mut Engine) -> Vec<(At, Event)> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while let Some(at) = engine.next_step() {
        engine.advance(at, &mut out);
        all.extend(out.drain(..).map(|event| (at, event)));
    }
    all
}

fn spec() -> Spec {
    Spec {
        slots: 4,
        kv_tokens: Tokens(1_000),
        prefill_chunk: Tokens(100),
        pace: Pace::default(),
        ..Spec::default()
    }
}

#[test]
fn one_job_runs_from_prefill_to_done() {
    let mut engine = Engine::new(spec());
    engine.submit(At(1_000), job(7, 250, 3)).expect("room");
    let pace = spec().pace;
    let chunks = [100, 100, 50].map(|tokens| pace.step_us(1, Tokens(tokens)));
    let first = 1_000 + chunks.iter().sum::<u64>();
    let step = pace.step_us(1, Tokens::ZERO);
    assert_eq!(
        drain(&mut engine),
        [
            (At(first), Event::FirstToken { id: 7, cached: Tokens(0) }),
            (At(first + step), Event::Token { id: 7, index: 1 }),
            (At(first + 2 * step), Event::Token { id: 7, index: 2 }),
            (At(first + 2 * step), Event::Done { id: 7 }),
        ]
    );
    let state = engine.state();
    assert_eq!((state.kv_used, state.finished, state.generated_tokens), (Tokens(0), 1, Tokens(3)));
    assert_eq!(state.prompt_tokens, Tokens(250));
}

#[test]
fn jobs_wait_for_slots_in_order_and_the_queue_has_an_end() {
    let mut engine = Engine::new(Spec { slots: 1, queue_len_max: 2, ..spec() });
    for id in 0..3 {
        engine.submit(At(0), job(id, 1, 1)).expect("room");
    }
    assert_eq!(engine.submit(At(0), job(3, 1, 1)), Err(Full::Queue));
    assert_eq!(engine.submit(At(0), job(3, 900, 101)), Err(Full::Context));
    assert_eq!((engine.state().running, engine.state().waiting, engine.state().refused), (1, 2, 2));
    assert!(engine.is_waiting(1) && !engine.is_waiting(0));
    let done: Vec<u64> = drain(&mut engine)
        .iter()
        .filter_map(|(_, event)| if let Event::Done { id } = event { Some(*id) } else { None })
        .collect();
    assert_eq!(done, [0, 1, 2]);
}

#[test]
fn a_job_without_output_is_done_after_its_prefill() {
    let mut engine = Engine::new(spec());
    engine.submit(At(0), job(1, 0, 0)).expect("room");
    let events: Vec<_> = drain(&mut engine).into_iter().map(|(_, event)| event).collect();
    assert_eq!(events, [Event::Done { id: 1 }]);
}

#[test]
fn a_known_prefix_is_not_computed_again() {
    let mut engine = Engine::new(Spec { block_tokens: Tokens(10), ..spec() });
    let with =
        |id, last| Job { id, prompt: Tokens(45), prefix: Box::new([1, 2, 3, last]), output: Tokens(1) };
    engine.submit(At(0), with(1, 4)).expect("room");
    drain(&mut engine);
    assert_eq!(engine.state().kv_cached, Tokens(40));
    engine.submit(At(1_000_000), with(2, 5)).expect("room");
    let events = drain(&mut engine);
    let took = spec().pace.step_us(1, Tokens(15));
    assert_eq!(events[0], (At(1_000_000 + took), Event::FirstToken { id: 2, cached: Tokens(30) }));
    assert_eq!((engine.state().prefix_queries, engine.state().prefix_hits), (Tokens(90), Tokens(30)));
    // The whole prompt known: its last block is still partly computed, for the first token.
    let whole = Job { id: 3, prompt: Tokens(40), prefix: Box::new([1, 2, 3, 4]), output: Tokens(1) };
    engine.submit(At(2_000_000), whole).expect("room");
    assert_eq!(drain(&mut engine)[0].1, Event::FirstToken { id: 3, cached: Tokens(30) });
}

#[test]
fn the_youngest_gives_way_when_memory_runs_out_and_still_ends() {
    let mut engine = Engine::new(Spec { kv_tokens: Tokens(100), ..spec() });
    engine.submit(At(0), job(1, 10, 80)).expect("room");
    engine.submit(At(0), job(2, 10, 80)).expect("room");
    let events = drain(&mut engine);
    let preempted: Vec<_> =
        events.iter().filter(|(_, event)| matches!(event, Event::Preempted { .. })).collect();
    assert!(!preempted.is_empty());
    assert!(preempted.iter().all(|(_, event)| *event == Event::Preempted { id: 2 }));
    for id in [1, 2] {
        let tokens: Vec<u32> = events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::FirstToken { id: of, .. } if *of == id => Some(0),
                Event::Token { id: of, index } if *of == id => Some(*index),
                _ => None,
            })
            .collect();
        assert_eq!(tokens, (0..80).collect::<Vec<_>>(), "each token of {id} once, in order");
    }
}

#[test]
fn an_engine_that_reserves_takes_no_more_than_fits_to_the_end() {
    // Eight jobs of 100 after 100 in 650 tokens. By prompts alone six would run and
    // outgrow the memory; kept to their ends only three fit (3 x 200), and the fourth waits
    // for the end of one of them.
    let mut engine = Engine::new(Spec { slots: 8, kv_tokens: Tokens(650), reserves: true, ..spec() });
    for id in 0..8 {
        engine.submit(At(0), job(id, 100, 100)).expect("room");
    }
    let events = drain(&mut engine);
    assert_eq!(engine.state().preempted, 0);
    assert_eq!(engine.state().finished, 8);
    let done = |wanted: u64| {
        events.iter().find(|(_, event)| *event == Event::Done { id: wanted }).map(|(at, _)| *at)
    };
    let began = |wanted: u64| {
        let first = |event: &Event| matches!(event, Event::FirstToken { id, .. } if *id == wanted);
        events.iter().find(|(_, event)| first(event)).map(|(at, _)| *at)
    };
    assert!(began(2) < done(0) && began(3) >= done(0), "three at once, and no fourth");
}

#[test]
fn a_cancelled_job_frees_its_memory_and_is_heard_of_no_more() {
    let mut engine = Engine::new(Spec { slots: 1, ..spec() });
    engine.submit(At(0), job(1, 500, 400)).expect("room");
    engine.submit(At(0), job(2, 5, 2)).expect("room");
    assert!(engine.cancel(At(10), 1));
    assert!(!engine.cancel(At(10), 1));
    assert_eq!((engine.state().kv_used, engine.state().cancelled), (Tokens(0), 1));
    let events = drain(&mut engine);
    assert_eq!(events.last().map(|(_, event)| *event), Some(Event::Done { id: 2 }));
    assert!(events.iter().all(|(_, event)| !matches!(event, Event::FirstToken { id: 1, .. })));
    // Cancelling all leaves it idle after the step under way.
    engine.submit(At(9_000_000), job(3, 5, 50)).expect("room");
    assert!(engine.cancel(At(9_000_001), 3));
    assert!(drain(&mut engine).is_empty());
    assert_eq!(engine.next_step(), None);
}

#[test]
fn throughput_follows_the_law() {
    for batch in [1u64, 8, 64] {
        let pace = Pace::preset("h100-llama2-70b").expect("a preset");
        let mut engine =
            Engine::new(Spec { slots: 64, kv_tokens: Tokens(1_000_000), pace, ..Spec::default() });
        for id in 0..batch {
            engine.submit(At(0), job(id, 1, 2_000)).expect("room");
        }
        let last = drain(&mut engine).last().expect("events").0;
        let rate = (batch * 2_000) as f64 / (last.0 as f64 / 1e6);
        let law = batch as f64 / (pace.step_us(batch, Tokens::ZERO) as f64 / 1e6);
        assert!((rate / law - 1.0).abs() < 0.02, "batch {batch}: {rate} tokens/s, law {law}");
    }
}

#[test]
fn jitter_keeps_the_mean() {
    let run = |jitter_percent| {
        let mut engine = Engine::new(Spec { jitter_percent, ..spec() });
        engine.submit(At(0), job(1, 1, 900)).expect("room");
        drain(&mut engine).last().expect("events").0.0 as f64
    };
    let ratio = run(30) / run(0);
    assert!(ratio != 1.0 && (ratio - 1.0).abs() < 0.02, "{ratio}");
}

/// A random life: arrivals, shared prefixes, cancels. Gives all that happened.
fn live(seed: u64, spec: &Spec) -> (Vec<(At, Event)>, String) {
    let mut engine = Engine::new(spec.clone());
    let mut rng = Rng::seed(seed);
    let (mut events, mut out, mut now) = (Vec::new(), Vec::new(), At(0));
    let (mut taken, mut cancelled) = (Vec::new(), Vec::new());
    for id in 0..80 {
        now = At(now.0 + rng.below(20_000));
        while let Some(at) = engine.next_step().filter(|at| *at <= now) {
            engine.advance(at, &mut out);
            events.extend(out.drain(..).map(|event| (at, event)));
            let state = engine.state();
            assert!(state.kv_used + state.kv_cached <= state.kv_tokens, "memory holds: {state:?}");
            assert!(state.running <= spec.slots && state.waiting <= spec.queue_len_max + spec.slots);
        }
        let prompt = 1 + rng.below(spec.kv_tokens.0 / 2);
        let family = rng.below(3);
        let prefix = (0..prompt / 7).map(|block| family * 1_000 + block).collect();
        let job = Job { id, prompt: Tokens(prompt), prefix, output: Tokens(rng.below(spec.kv_tokens.0 / 2)) };
        if engine.submit(now, job).is_ok() {
            taken.push(id);
        }
        let victim = rng.below(id + 1);
        if rng.chance(0.2) && engine.cancel(now, victim) {
            cancelled.push(victim);
        }
    }
    events.extend(drain(&mut engine));
    let mut ended: Vec<u64> = events
        .iter()
        .filter_map(|(_, event)| if let Event::Done { id } = event { Some(*id) } else { None })
        .collect();
    ended.extend(&cancelled);
    ended.sort_unstable();
    assert_eq!(ended, taken, "every job taken ends exactly once");
    let state = engine.state();
    assert_eq!((state.running, state.waiting, state.kv_used), (0, 0, Tokens(0)), "nothing is left behind");
    assert_eq!(state.finished + state.cancelled, state.submitted);
    (events, format!("{state:?}"))
}

proptest! {
    // Each case is a whole life; more cases find nothing that these do not.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_life_conserves_jobs_and_memory_and_repeats(
        seed: u64,
        slots in 1u32..9,
        kv in 40u64..2_000,
        chunk in 1u64..400,
        queue in 1u32..20,
        jitter in 0u32..50,
    ) {
        let spec = Spec {
            slots,
            kv_tokens: Tokens(kv),
            prefill_chunk: Tokens(chunk),
            queue_len_max: queue,
            block_tokens: Tokens(7),
            jitter_percent: jitter,
            seed,
            ..Spec::default()
        };
        prop_assert_eq!(live(seed, &spec), live(seed, &spec));
    }
}
