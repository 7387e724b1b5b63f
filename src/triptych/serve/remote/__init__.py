"""The direct lane over RabbitMQ: gateways answer HTTP, workers on any number of machines compute."""
