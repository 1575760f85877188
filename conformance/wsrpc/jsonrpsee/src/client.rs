//! A client that drives a server of ours.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonrpsee_core::client::{BatchResponse, ClientT, Subscription, SubscriptionClientT};
use jsonrpsee_core::params::{ArrayParams, BatchRequestBuilder, ObjectParams};
use jsonrpsee_core::rpc_params;
use jsonrpsee_ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};

type Checked = Result<(), Box<dyn Error>>;

/// A case that takes longer hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(30);

/// Something else came than what is right.
fn same<T: PartialEq + std::fmt::Debug>(came: T, right: T) -> Checked {
    if came == right { Ok(()) } else { Err(format!("{came:?} came instead of {right:?}").into()) }
}

/// Runs every case.
pub async fn drive(url: &str) -> Checked {
    let client = WsClientBuilder::default().build(url).await?;
    macro_rules! case {
        ($name:literal, $case:expr) => {
            match tokio::time::timeout(CASE_TIME_MAX, $case).await {
                Ok(Ok(())) => println!("passed {}", $name),
                Ok(Err(why)) => println!("failed {}: {}", $name, why.to_string().replace('\n', " ")),
                Err(_) => println!("failed {}: it hangs", $name),
            }
        };
    }
    case!("params come by position and by name", params(&client));
    case!("values of every kind come back the same", values(&client));
    case!("errors have their code, message and data", errors(&client));
    case!("notifications are heard and not answered", notifications(&client));
    case!("slow calls are overtaken by fast ones", overtaking(&client));
    case!("a thousand calls, two hundred at once, are all answered", many(&client));
    case!("a batch is answered in its order, errors included", batch(&client));
    case!("a subscription brings its values in order until it is ended", subscription(&client));
    case!("ten subscriptions at once are kept apart", subscriptions(&client));
    case!("a subscription that is refused says why", refused(&client));
    Ok(())
}

async fn params(client: &WsClient) -> Checked {
    same(client.request::<i64, _>("subtract", rpc_params![42, 23]).await?, 19)?;
    let mut named = ObjectParams::new();
    named.insert("subtrahend", 23)?;
    named.insert("minuend", 42)?;
    same(client.request::<i64, _>("subtract", named).await?, 19)?;
    same(client.request::<i64, _>("sum", rpc_params![1, 2, 4]).await?, 7)?;
    same(client.request::<Value, _>("get_data", ArrayParams::new()).await?, json!(["hello", 5]))
}

async fn values(client: &WsClient) -> Checked {
    for value in [
        json!(null),
        json!(true),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1.5e300),
        json!(0.1),
        json!(""),
        json!("aß€\u{1F600}\u{0}\"\\\n\u{2028}"),
        json!([]),
        json!({}),
        json!([[], [null], {}]),
        json!({ "": { "__proto__": [1, 2.5, "x"] } }),
        json!("x".repeat(500_000)),
    ] {
        let came: Value = client.request("echo", rpc_params![value.clone()]).await?;
        same(came, value)?;
    }
    Ok(())
}

async fn errors(client: &WsClient) -> Checked {
    for (method, params, code, words, data) in [
        ("fail", rpc_params![], -7, "no such sensor", Some("{\"sensor\":3}")),
        ("foobar", rpc_params![], -32601, "Method not found", None),
        ("subtract", rpc_params!["a", "b"], -32602, "Invalid params", None),
        ("raise", rpc_params![], -32603, "Internal error", None),
    ] {
        match client.request::<Value, _>(method, params).await {
            Err(jsonrpsee_core::ClientError::Call(error)) => {
                same((error.code(), error.message()), (code, words))?;
                if data.is_some() {
                    same(error.data().map(|data| data.get()), data)?;
                }
            }
            other => return Err(format!("{method} came to {other:?}").into()),
        }
    }
    Ok(())
}

async fn notifications(client: &WsClient) -> Checked {
    let before: u64 = client.request("heard", rpc_params![]).await?;
    for value in 0..10 {
        client.notification("update", rpc_params![value]).await?;
    }
    client.notification("foobar", rpc_params![]).await?;
    same(client.request::<u64, _>("heard", rpc_params![]).await?, before + 10)
}

async fn overtaking(client: &WsClient) -> Checked {
    let slow = client.request::<Value, _>("slow", rpc_params![2000, "slow"]);
    let fast = async {
        let begun = Instant::now();
        for value in 0..100 {
            same(client.request::<i64, _>("echo", rpc_params![value]).await?, value)?;
        }
        Ok::<_, Box<dyn Error>>(begun.elapsed())
    };
    let begun = Instant::now();
    let (slow, fast) = tokio::join!(slow, fast);
    same(slow?, json!("slow"))?;
    same((begun.elapsed() >= Duration::from_millis(2000), fast? < Duration::from_millis(1900)), (true, true))
}

async fn many(client: &WsClient) -> Checked {
    let calls = (0..200_u64).map(|value| async move {
        for round in 0..5 {
            let (time, value) = (value * 7 % 13, value * 5 + round);
            same(client.request::<u64, _>("slow", rpc_params![time, value]).await?, value)?;
        }
        Ok::<_, Box<dyn Error>>(())
    });
    for done in futures::future::join_all(calls).await {
        done?;
    }
    Ok(())
}

async fn batch(client: &WsClient) -> Checked {
    let mut batch = BatchRequestBuilder::new();
    batch.insert("slow", rpc_params![50, "first"])?;
    batch.insert("foobar", rpc_params![])?;
    batch.insert("echo", rpc_params!["third"])?;
    let answers: BatchResponse<'_, Value> = client.batch_request(batch).await?;
    same((answers.len(), answers.num_successful_calls(), answers.num_failed_calls()), (3, 2, 1))?;
    let came: Vec<_> = answers.iter().map(|one| one.as_ref().map_err(|error| error.code()).cloned()).collect();
    same(came, vec![Ok(json!("first")), Err(-32601), Ok(json!("third"))])
}

async fn count(client: &WsClient, last: u64) -> Result<Subscription<u64>, Box<dyn Error>> {
    Ok(client.subscribe("subscribe_count", rpc_params![last], "unsubscribe_count").await?)
}

async fn subscription(client: &WsClient) -> Checked {
    let mut values = count(client, 500).await?;
    for right in 1..=500 {
        same(values.next().await.ok_or("it ended early")??, right)?;
    }
    values.unsubscribe().await?;
    // There is one fewer over there, once the answer has come.
    same(client.request::<u64, _>("subscriptions", rpc_params![]).await?, 0)
}

async fn subscriptions(client: &WsClient) -> Checked {
    let mut all = Vec::new();
    for last in 1..=10 {
        all.push((last, count(client, last).await?));
    }
    same(client.request::<u64, _>("subscriptions", rpc_params![]).await?, 10)?;
    for (last, values) in &mut all {
        for right in 1..=*last {
            same(values.next().await.ok_or("it ended early")??, right)?;
        }
    }
    for (_, values) in all {
        values.unsubscribe().await?;
    }
    same(client.request::<u64, _>("subscriptions", rpc_params![]).await?, 0)
}

async fn refused(client: &WsClient) -> Checked {
    match client.subscribe::<u64, _>("subscribe_count", rpc_params!["x"], "unsubscribe_count").await {
        Err(jsonrpsee_core::ClientError::Call(error)) => same(error.code(), -32602),
        other => Err(format!("it came to {:?}", other.map(|_| ())).into()),
    }
}

/// Calls `sum` again and again, so many at a time.
pub async fn load(url: &str, count: usize, window: usize) -> Checked {
    let client = Arc::new(WsClientBuilder::default().build(url).await?);
    let begun = Instant::now();
    let callers = (0..window).map(|caller| {
        let client = client.clone();
        async move {
            for _ in 0..(count + window - 1 - caller) / window {
                same(client.request::<u64, _>("sum", rpc_params![1, 2]).await?, 3)?;
            }
            Ok::<_, Box<dyn Error>>(())
        }
    });
    for done in futures::future::join_all(callers).await {
        done?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{{\"n\":{count},\"secs\":{seconds:.6},\"bytes\":0}}");
    Ok(())
}
