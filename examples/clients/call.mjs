// Calls a function from Node, by docs/protocol.md and a Kafka client alone:
//   npm install kafkajs
//   EASYREMOTE_KAFKA=localhost:9092 node call.mjs text_sentiment_analysis '"I love it"'
// Each argument is JSON. The result is printed as JSON; an error goes to stderr, and the exit code is 1.
import { randomUUID } from "node:crypto";
import { Kafka, logLevel } from "kafkajs";

const LAST_WORD_S = 1.5; // a call that no node could begin is told so up to 1.5 s after its deadline

export class Client {
  constructor(brokers, namespace = "") {
    const kafka = new Kafka({ brokers, clientId: "easyremote-node", logLevel: logLevel.ERROR });
    this.admin = kafka.admin();
    this.producer = kafka.producer();
    this.consumer = kafka.consumer({ groupId: `${namespace}client-${randomUUID()}` });
    this.topic = (name) => namespace + name;
    this.waiting = new Map(); // id → { resolve, reject, timer }
  }

  async open() {
    await Promise.all([this.admin.connect(), this.producer.connect(), this.consumer.connect()]);
    const replies = this.topic("replies");
    const ends = await this.admin.fetchTopicOffsets(replies); // before the first call, so that no reply is missed
    await this.consumer.subscribe({ topic: replies });
    await this.consumer.run({ autoCommit: false, eachMessage: async ({ message }) => this.#take(message) });
    for (const { partition, high } of ends) this.consumer.seek({ topic: replies, partition, offset: high });
    return this;
  }

  // Returns a promise of the result; `id` may be that of an earlier try, which is then answered from its result.
  call(name, args, { id = randomUUID(), timeoutS = 30, ...options } = {}) {
    return new Promise((resolve, reject) => {
      const late = () => this.#end(id, ({ reject }) => reject(failure("DeadlineExceeded", `no reply to ${name}`, false)));
      this.waiting.set(id, { resolve, reject, timer: setTimeout(late, (timeoutS + LAST_WORD_S) * 1000) });
      const value = JSON.stringify({ function: name, args, timeout_s: timeoutS, ...options });
      const headers = { kafka_correlationId: id, kafka_replyTopic: this.topic("replies") };
      const sent = this.producer.send({ topic: this.topic("requests"), messages: [{ value, headers }] });
      sent.catch((error) => this.#end(id, ({ reject }) => reject(error)));
    });
  }

  cancel(id) {
    return this.producer.send({ topic: this.topic("cancellations"), messages: [{ key: id, value: JSON.stringify({ id }) }] });
  }

  async close() {
    await Promise.all([this.consumer.disconnect(), this.producer.disconnect(), this.admin.disconnect()]);
  }

  #take({ value, headers }) {
    this.#end(headers.kafka_correlationId?.toString(), ({ resolve, reject }) => {
      const { status, result, error } = JSON.parse(value);
      if (status === "ok") resolve(result);
      else reject(failure(error.type, error.message, error.retriable));
    });
  }

  #end(id, how) {
    const call = this.waiting.get(id);
    if (!call) return; // another client's, or told before
    this.waiting.delete(id);
    clearTimeout(call.timer);
    how(call);
  }
}

const failure = (type, message, retriable) => Object.assign(new Error(message), { name: type, retriable });

if (process.argv[1] === import.meta.filename) {
  const [name, ...args] = process.argv.slice(2);
  const { EASYREMOTE_KAFKA: brokers = "localhost:9092", EASYREMOTE_NAMESPACE: namespace = "" } = process.env;
  const client = await new Client(brokers.split(","), namespace).open();
  await client.call(name, args.map(JSON.parse)).then(
    (result) => console.log(JSON.stringify(result)),
    (error) => { console.error(`${error.name}: ${error.message}`); process.exitCode = 1; },
  );
  await client.close();
}
