//! temp
use crate::error::*;
use crate::event::Bucket;
#[derive(Clone, Debug)]
pub struct OutboxName;
#[derive(Clone, Debug)]
pub struct Outbox {
    pub buckets: u16,
    pub sequence: String,
}
impl Outbox {
    pub fn bucket_table(&self, b: Bucket) -> String {
        format!("public.outbox_b{:02}", b.0)
    }
}
pub async fn load(_: &tokio_postgres::Client, _: &OutboxName) -> Result<Outbox> {
    Ok(Outbox { buckets: 16, sequence: "public.outbox_seq_seq".into() })
}
