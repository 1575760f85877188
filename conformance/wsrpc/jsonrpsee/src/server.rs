//! The service that every server here offers.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jsonrpsee_core::{SubscriptionResult, to_json_raw_value};
use jsonrpsee_server::{PendingSubscriptionSink, RpcModule, Server, ServerConfig};
use jsonrpsee_server::types::{ErrorObjectOwned, Params};
use serde_json::{Value, json};

/// Calls of `update`.
type Heard = AtomicU64;

/// Serves until it is ended.
pub async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let config = ServerConfig::builder().set_tcp_no_delay(true).build();
    let server = Server::builder().set_config(config).build(("127.0.0.1", port)).await?;
    let address = server.local_addr()?;
    let handle = server.start(module()?);
    println!("listening on {address}");
    handle.stopped().await;
    Ok(())
}

fn module() -> Result<RpcModule<Heard>, Box<dyn Error>> {
    let mut module = RpcModule::new(Heard::new(0));
    module.register_method("subtract", |params, _, _| subtract(&params))?;
    module.register_method("sum", |params, _, _| {
        Ok::<i64, ErrorObjectOwned>(params.parse::<Vec<i64>>()?.into_iter().sum())
    })?;
    module.register_method("get_data", |_, _, _| json!(["hello", 5]))?;
    module.register_method("update", |_, heard, _| {
        heard.fetch_add(1, Ordering::Relaxed);
        Value::Null
    })?;
    module.register_method("notify_hello", |_, _, _| Value::Null)?;
    module.register_method("notify_sum", |_, _, _| Value::Null)?;
    module.register_method("heard", |_, heard, _| heard.load(Ordering::Relaxed))?;
    module.register_method("echo", |params, _, _| params.one::<Value>())?;
    module.register_async_method("slow", |params, _, _| async move {
        let (milliseconds, value): (u64, Value) = params.parse()?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok::<Value, ErrorObjectOwned>(value)
    })?;
    module.register_method("fail", |_, _, _| {
        Err::<(), _>(ErrorObjectOwned::owned(-7, "no such sensor", Some(json!({ "sensor": 3 }))))
    })?;
    module.register_subscription("subscribe_count", "count", "unsubscribe_count", count)?;
    Ok(module)
}

fn subtract(params: &Params<'_>) -> Result<i64, ErrorObjectOwned> {
    #[derive(serde::Deserialize)]
    struct Named {
        minuend: i64,
        subtrahend: i64,
    }
    if params.is_object() {
        let named: Named = params.parse()?;
        return Ok(named.minuend - named.subtrahend);
    }
    let (minuend, subtrahend): (i64, i64) = params.parse()?;
    Ok(minuend - subtrahend)
}

/// Counts from one to a number, and holds the subscription open.
async fn count(
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    _: std::sync::Arc<Heard>,
    _: jsonrpsee_server::Extensions,
) -> SubscriptionResult {
    let last: u64 = match params.one() {
        Ok(last) => last,
        Err(error) => {
            pending.reject(error).await;
            return Ok(());
        }
    };
    let sink = pending.accept().await?;
    for value in 1..=last {
        sink.send(to_json_raw_value(&value)?).await?;
    }
    sink.closed().await;
    Ok(())
}
