//! `seawall run stop | resume | forget`: stops runs of agents on a running server and lets
//! them go on, and deletes what the store keeps of them.

use http::{Method, StatusCode};
use seawall_model::Tenant;
use seawall_store::{Error, Store};
use serde_json::json;

use crate::config::Loaded;
use crate::gateway::ask::run_id;

use super::args::{RunCommand, RunForgetArgs, RunHaltArgs};
use super::{check, code, models, print};

pub(crate) fn run(command: &RunCommand) -> i32 {
    match command {
        RunCommand::Stop(args) => halt(args, "stop"),
        RunCommand::Resume(args) => halt(args, "resume"),
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
    let run = run_id(&tenant, &args.name).0;
    let path = format!("/seawall/runs/{run:016x}/{order}");
    let asked = models::parse(&args.url).and_then(|url| {
        models::wait_for(&url, async {
            match models::fetch(&url, Method::POST, &path, args.key.as_deref()).await? {
                (StatusCode::OK, body) => Ok(body),
                (status, _) => Err(models::refused(&url, status)),
            }
        })
    });
    match asked {
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
