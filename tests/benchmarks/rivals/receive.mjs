// Fastify + BullMQ: verifies the signature and adds a job under the event's id. PORT comes with --port.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { Queue } from 'bullmq'
import Fastify from 'fastify'

const key = process.env.JOBSITEON_API_KEY
const { hostname: host, port } = new URL(process.env.REDIS_URL)
const queue = new Queue('events', { connection: { host, port: Number(port) } })
const app = Fastify()

app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_, body, done) => done(null, body))

app.post('/webhooks/jobsiteon', async (request, reply) => {
  const expected = createHmac('sha256', key).update(request.body).digest()
  const given = Buffer.from(request.headers['x-signature'] ?? '', 'hex')
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return reply.code(401).send()
  const event = JSON.parse(request.body)
  await queue.add('event', { body: request.body.toString() }, { jobId: event.id, removeOnComplete: true })
  return { status: 'ok' }
})

process.once('SIGTERM', () => process.exit(0))
await app.listen({ host: '127.0.0.1', port: Number(process.argv.at(-1)) })
