//! The benchmark's client. One thread, raw HTTP/1.1, as little work per byte as possible:
//! what it costs must not be mistaken for what is measured.
//!
//! `seawall-bench-client COMMAND --to 127.0.0.1:8080 [--flag value]...` prints one JSON object.

mod cancel;
mod flags;
mod http;
mod load;
mod spread;
mod streams;

use std::process::ExitCode;

const USAGE: &str = "seawall-bench-client COMMAND --to HOST:PORT --model NAME [--flag value]...
  unary    --conns 64 --secs 10                    closed loop of unary calls
  burst    --n 50 --rounds 20                      N at once, wall time of the slowest
  streams  --n 500 --ramp-ms 1000 [--direct-ms]    N streams, each token's delay since it was stamped
  cancel   --mode stream|first|unary|queued --n 200 --spread-ms 10   leaves, and says when
  open     --rate 500 --secs 10                    open loop at a rate, refusals counted
  tenants  --keys FILE --conns 3,3,300 --secs 10   closed loops, one per tenant; --models N takes names in turn
closed loops take --warm-ms N: calls that end before it, or after the seconds, are not counted
all take --key KEY, --max-tokens N, --path PATH";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let flags = match flags::Flags::read(words) {
        Ok(flags) => flags,
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let result = runtime.block_on(async {
        match command.as_str() {
            "unary" => load::unary(&flags).await,
            "burst" => load::burst(&flags).await,
            "streams" => streams::run(&flags).await,
            "cancel" => cancel::run(&flags).await,
            "open" => load::open(&flags).await,
            "tenants" => load::tenants(&flags).await,
            _ => Err(USAGE.to_owned()),
        }
    });
    match result {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(64)
}
