"""Runs podman-compose 1.6.0 without two of its waits for the services in `depends_on`.

It fails for a service that is not started (`required: false`), and it waits forever for `service_started` if the service has
ended already. It starts services in the order of their dependencies, so that wait is not needed.
"""

import podman_compose

check_all = podman_compose.check_dep_conditions
STARTED = podman_compose.ServiceDependencyCondition.RUNNING


async def check_without_started(compose, deps):
    await check_all(compose, {dep for dep in deps if dep.condition != STARTED})


podman_compose.check_dep_conditions = check_without_started
podman_compose.main()
