// nodemailer's smtp-server as one more server that keeps nothing: npm install smtp-server, and then
//   make bench BENCH="--add 'node=node benchmarks/node_sink.cjs {port}'"
const { SMTPServer } = require("smtp-server");

const server = new SMTPServer({
  lmtp: true,
  authOptional: true,
  disabledCommands: ["AUTH", "STARTTLS"],
  disableReverseLookup: true,
  logger: false,
  maxClients: 20000,
  size: 64 * 1024 * 1024,
  onData(stream, session, done) {
    stream.resume();
    stream.on("end", () => done(null, session.envelope.rcptTo.map(() => "Ok")));
  },
});
server.on("error", () => {});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
