// BullMQ: `fill N` adds N jobs, `work` does nothing with each, one at a time.
import { Queue, Worker } from 'bullmq'

const { hostname: host, port } = new URL(process.env.REDIS_URL)
const connection = { host, port: Number(port), maxRetriesPerRequest: null }

if (process.argv[2] === 'fill') {
  const queue = new Queue('work', { connection })
  const job = { name: 'event', data: { body: 'x'.repeat(700) }, opts: { removeOnComplete: true } }
  await queue.addBulk(Array(Number(process.argv[3])).fill(job))
  await queue.close()
} else {
  process.once('SIGTERM', () => process.exit(0))
  new Worker('work', async () => {}, { connection, concurrency: 1 })
}
