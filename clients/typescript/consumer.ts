/** Pays each order once: the effect and the inbox in one transaction, Kafka's offsets behind it. */
import { Consumer, stringDeserializers, type Message } from '@platformatic/kafka'
import { Client } from 'pg'

type Polled = Message<string, string, string, string>

const name = process.env.CONSUMER ?? 'billing'
const pollRecords = 500
const admit =
  'select postrider_inbox.admit($1, $2, $3, $4::text[]::bigint[], $5::text[]::numeric[], $6::text[]::uuid[]) as is_new'
const effect = 'insert into effect (event_id, aggregate_id) values ($1, $2)'

/** One transaction per poll. It may run again for the same records: nothing happens then. */
async function handle(database: Client, records: Polled[]): Promise<void> {
  const header = (name: string) => records.map((record) => record.headers.get(name) ?? null)
  const types = records.map((record) => record.headers.get('aggregatetype') ?? record.topic)
  const keys = records.map((record) => record.key)
  const ids = header('id')
  await database.query('begin')
  try {
    const answer = await database.query(admit, [name, types, keys, header('seq'), header('position'), ids])
    const isNew: boolean[] = answer.rows[0].is_new
    for (const [place, key] of keys.entries()) {
      if (isNew[place]) await database.query(effect, [ids[place], key])
    }
    await database.query('commit')
  } catch (cause) {
    await database.query('rollback')
    throw cause
  }
}

async function consume(databaseUrl: string, broker: string, topic: string): Promise<void> {
  const database = new Client({ connectionString: databaseUrl })
  await database.connect()
  const kafka = new Consumer({
    groupId: name,
    clientId: name,
    bootstrapBrokers: broker.split(','),
    deserializers: stringDeserializers,
    sessionTimeout: 10_000, // Shorter than a request may take: whoever joins waits for one that was killed.
  })
  const from = { mode: 'committed', fallbackMode: 'earliest' } as const
  const stream = await kafka.consume({ topics: [topic], autocommit: false, ...from })
  for await (const first of stream) {
    const records: Polled[] = [first]
    for (let next: Polled | null; records.length < pollRecords && (next = stream.read()) !== null; ) records.push(next)
    await handle(database, records)
    const last = new Map(records.map((record) => [`${record.topic}:${record.partition}`, record]))
    for (const record of last.values()) await record.commit()
  }
}

consume(process.env.DATABASE_URL!, process.env.BROKERS!, process.argv[2]!).catch((cause) => {
  console.error(cause)
  process.exit(1)
})
