// The generated TypeScript client: logs in, makes a user, lists it. `make clients` compiles and runs this.
import { AuthApi, Configuration, UsersApi } from "./generated";

async function main(): Promise<void> {
  const basePath = process.env.CONTROL_PLANE_URL ?? "http://localhost:23000";
  const auth = new AuthApi(new Configuration({ basePath }));
  const login = await auth.loginRaw({ login: { token: process.env.ADMIN_TOKEN ?? "" } });
  const cookie = login.raw.headers.getSetCookie().map((one) => one.split(";")[0]).join("; ");
  const users = new UsersApi(new Configuration({ basePath, headers: { Cookie: cookie } }));
  const name = `TypeScript ${Date.now()}`;
  const added = await users.addUser({ addUser: { name, rpm: 60, dailyQuota: 10 } });
  const listed = await users.getUsers({ getUsers: { searchTerm: name } });
  if (!added.ok || listed.data.length !== 1 || listed.data[0].id !== added.data.id) {
    throw new Error(`not listed: ${JSON.stringify(listed)}`);
  }
  await users.removeUser({ removeUser: { userId: added.data.id } });
  console.log(`typescript: made, listed and removed user ${added.data.id}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
