//! `seawall run stop | resume | forget`: stops runs of agents on a running server and lets
//! them go on, and deletes what the store keeps of them. Other orders are those of durable
//! runs alone.

use http::Method;
use seawall_model::{RunKey, Tenant};
use seawall_store::{Error, Store};
use serde_json::json;

use crate::config::Loaded;
use crate::gateway::ask::run_id;

use super::args::{RunCommand, RunForgetArgs, RunHaltArgs};
use super::server::Server;
use super::{agents, check, code, print};

pub(crate) fn run(command: &RunCommand) -> i32 {
    match command {
        RunCommand::Stop(args) => halt(args, "stop"),
        RunCommand::Resume(args) => halt(args, "resume"),
        RunCommand::Cancel(args) => agents::orders::cancel(args),
        RunCommand::Again(args) => agents::orders::again(args),
        RunCommand::Fork(args) => agents::orders::fork(args),
        RunCommand::Forget(args) => forget(args),
    }
}

/// The tenant as given; `None` was told.
fn tenant(path: &str) -> Option<Tenant> {
    let parsed = Tenant::parse(path);
    parsed
        .map_err(|error| print::failure(&format!("--tenant {path:?}: {error}"), "for example acme/search"))
        .ok()
}

fn halt(args: &RunHaltArgs, order: &str) -> i32 {
    let Some(tenant) = tenant(&args.tenant) else { return code::USAGE };
    // A durable run goes by its own name, one of the door by a digest of its.
    let run = match RunKey::parse(&args.name) {
        Some(durable) => durable.to_string(),
        None => format!("{:016x}", run_id(&tenant, &args.name).0),
    };
    let path = format!("/seawall/runs/{run}/{order}");
    match Server::at(&args.server).and_then(|server| server.ask(Method::POST, &path, None)) {
        Ok(body) if args.json.json => print::json(&body),
        Ok(_) if order == "stop" => {
            print::line(&format!("The run {:?} of {tenant} and all below it are stopped.", args.name));
        }
        Ok(_) => print::line(&format!("The run {:?} of {tenant} goes on.", args.name)),
        Err(failed) => {
            print::failure(&failed.what, &failed.hint);
            return failed.code;
        }
    }
    code::OK
}

fn forget(args: &RunForgetArgs) -> i32 {
    let Some(tenant) = tenant(&args.tenant) else { return code::USAGE };
    let flags = args.config.flags();
    let loaded = match Loaded::read(&flags) {
        Ok(loaded) => loaded,
        Err(problems) => {
            check::report(&flags, &problems);
            return code::USAGE;
        }
    };
    let forgotten = Store::open_beside(&loaded.config.data)
        .and_then(|mut store| Ok((store.forget_run(&tenant, &args.name)?, store.close()?).0));
    match forgotten {
        Ok(answers) if args.json.json => print::json(&json!({ "answers": answers })),
        Ok(0) => print::line(&format!("Nothing is kept of the run {:?} of {tenant}.", args.name)),
        Ok(answers) => {
            print::line(&format!("{answers} answers of the run {:?} of {tenant} deleted.", args.name));
        }
        Err(error) => {
            let exit = match error {
                Error::NotOpen { .. } | Error::Newer { .. } => code::CANT_CREATE,
                Error::InUse { .. } | Error::Busy => code::UNAVAILABLE,
                _ => code::IO,
            };
            print::failure(&error.to_string(), "");
            return exit;
        }
    }
    code::OK
}
