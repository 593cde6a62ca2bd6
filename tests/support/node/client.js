// A client made from this project's .proto files: node client.js ADDRESS PROJECT_ROOT
//
// Sends one request by itself and others over a stream, and prints what came back as JSON.

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, root] = process.argv.slice(2);
const definition = loader.loadSync("frontends/grpc/grpc_service.proto", {
  includeDirs: [root],
  keepCase: true,
  defaults: true,
  longs: Number,
});
const service = grpc.loadPackageDefinition(definition).inference;
const client = new service.GRPCInferenceService(address, grpc.credentials.createInsecure());
const deadline = new Date(Date.now() + 30000);

function request(model, id, parameters) {
  const data = Buffer.alloc(8);
  data.writeFloatLE(1.5, 0);
  data.writeFloatLE(-2, 4);
  return {
    model_name: model,
    id,
    parameters,
    inputs: [{ name: "A", datatype: "FP32", shape: [1, 2] }],
    raw_input_contents: [data],
  };
}

function told(response) {
  const buffer = response.raw_output_contents[0];
  return {
    id: response.id,
    model: response.model_name,
    outputs: response.outputs.map((output) => [output.name, output.datatype, output.shape]),
    bytes: buffer ? buffer.toString("hex") : null,
    final: response.parameters.triton_final_response ? response.parameters.triton_final_response.bool_param : null,
  };
}

function unary(done) {
  client.ModelInfer(request("echo", "unary"), { deadline }, (error, response) => {
    if (error) throw error;
    done(told(response));
  });
}

function failing(done) {
  client.ModelInfer(request("nope", "failing"), { deadline }, (error) => {
    done({ code: error.code, details: error.details });
  });
}

function streaming(done) {
  const stream = client.ModelStreamInfer({ deadline });
  const responses = [];
  stream.on("data", (message) => {
    responses.push(message.error_message ? { error: message.error_message } : told(message.infer_response));
  });
  stream.on("error", (error) => {
    throw error;
  });
  stream.on("end", () => done(responses));
  stream.write(request("echo", "first"));
  stream.write(request("nope", "second"));
  stream.write(
    request("stream", "third", {
      count: { int64_param: 2 },
      triton_enable_empty_final_response: { bool_param: true },
    }),
  );
  stream.end();
}

unary((one) => failing((error) => streaming((many) => {
  console.log(JSON.stringify({ unary: one, failing: error, streaming: many }));
  client.close();
})));
