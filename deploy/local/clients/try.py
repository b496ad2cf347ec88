"""The generated Python client: logs in, makes a user, lists it. `make clients` runs this."""

import os
import time

import openapi_client
from openapi_client import AddUser, AuthApi, GetUsers, Login, RemoveUser, UsersApi


def main() -> None:
    configuration = openapi_client.Configuration(host=os.environ["CONTROL_PLANE_URL"])
    with openapi_client.ApiClient(configuration) as client:
        login = AuthApi(client).login_with_http_info(Login(token=os.environ["ADMIN_TOKEN"]))
        headers = {name.lower(): value for name, value in login.headers.items()}
        cookie = headers["set-cookie"].split(";")[0]
        client.default_headers["Cookie"] = cookie
        users = UsersApi(client)
        name = f"Python {time.time_ns()}"
        added = users.add_user(AddUser(name=name, rpm=60, daily_quota=10))
        listed = users.get_users(GetUsers(search_term=name))
        assert added.ok and [user.id for user in listed.data] == [added.data.id], listed
        users.remove_user(RemoveUser(user_id=added.data.id))
        print(f"python: made, listed and removed user {added.data.id}")


main()
