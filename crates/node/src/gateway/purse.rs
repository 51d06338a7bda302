//! What a run may use, as its first call says: the header `x-seawall-budget`.

use http::HeaderMap;
use seawall_kernel::Input;
use seawall_kernel::plan::{Meter, RunBudget};
use seawall_kernel::view::MeterView;
use seawall_model::{Code, Fault, Lineage, Tenant};
use serde_json::{Map, Value, json};

use crate::app::App;

use super::ask::{run_id, text};

const HEADER: &str = "x-seawall-budget";
/// The dearest that a run can be said to be: far above any, and exact in an `f64`.
const USD_MAX: f64 = 1e6;

/// Tells the kernel what a call says that its run, and all below it, may use.
///
/// # Errors
/// `BadHeader` for a budget that is none, or without a run.
pub fn bound(
    app: &App,
    tenant: &Tenant,
    lineage: Option<&Lineage>,
    headers: &HeaderMap,
) -> Result<(), Fault> {
    let Some(said) = text(headers, HEADER)? else { return Ok(()) };
    let Some(lineage) = lineage else {
        return Err(bad("A budget belongs to a run: send `x-seawall-run` as well."));
    };
    let budget = read(said)?;
    let (run, name) = (run_id(tenant, &lineage.run), lineage.run.clone());
    app.seat.tell(Input::Bound { run, tenant: tenant.clone(), name, budget });
    Ok(())
}

fn bad(message: &'static str) -> Fault {
    Fault::new(Code::BadHeader, message).at(HEADER)
}

/// Reads `tokens=200000, calls=50, usd=1.5`.
fn read(said: &str) -> Result<RunBudget, Fault> {
    let wrong =
        || bad("A budget is like `tokens=200000, calls=50, usd=1.5`: each at most once, each above zero.");
    let mut budget = RunBudget::default();
    for part in said.split(',') {
        let (meter, amount) = part.split_once('=').ok_or_else(wrong)?;
        let amount = amount.trim();
        let whole = || amount.parse::<u64>().ok();
        let (place, amount) = match meter.trim() {
            "tokens" => (&mut budget.tokens, whole()),
            "calls" => (&mut budget.calls, whole()),
            "usd" => (&mut budget.money, micros(amount)),
            _ => return Err(wrong()),
        };
        let amount = amount.filter(|amount| *amount > 0).ok_or_else(wrong)?;
        if place.replace(amount).is_some() {
            return Err(wrong());
        }
    }
    Ok(budget)
}

/// Dollars in millionths.
fn micros(usd: &str) -> Option<u64> {
    let usd = usd.parse::<f64>().ok()?;
    (0.0..=USD_MAX).contains(&usd).then(|| (usd * 1e6).round() as u64)
}

/// What a run may use, has used and has reserved, and what is left to it, as fields of it.
pub(super) fn shown(meters: &[MeterView]) -> [(&'static str, Value); 4] {
    let all = |of: fn(&MeterView) -> u64| {
        let each = meters.iter().map(|view| match view.meter {
            Meter::Tokens => ("tokens".to_owned(), json!(of(view))),
            Meter::Calls => ("calls".to_owned(), json!(of(view))),
            Meter::Money => ("money_usd".to_owned(), json!(of(view) as f64 / 1e6)),
        });
        Value::Object(each.collect::<Map<_, _>>())
    };
    [
        ("allowance", all(|view| view.limit)),
        ("used", all(|view| view.spent)),
        ("reserved", all(|view| view.reserved)),
        ("left", all(|view| view.left)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_or_refused() {
        let budget = |tokens, calls, money| RunBudget { tokens, calls, money };
        assert_eq!(
            read("tokens=200000, calls=50, usd=1.5").expect("valid"),
            budget(Some(200_000), Some(50), Some(1_500_000))
        );
        assert_eq!(read(" calls = 1 ").expect("valid"), budget(None, Some(1), None));
        for wrong in [
            "",
            "50",
            "calls",
            "calls=",
            "calls=0",
            "calls=-1",
            "calls=1.5",
            "calls=1,",
            "calls=1, calls=2",
            "eur=1",
            "usd=0",
            "usd=-1",
            "usd=NaN",
            "usd=inf",
            "usd=1e9",
            "tokens=99999999999999999999",
        ] {
            let fault = read(wrong).expect_err(wrong);
            assert_eq!(fault.code, Code::BadHeader, "{wrong}");
        }
    }
}
