"""The pod's environment becomes settings, and secrets stay out of their printed form."""

from loraland_core import jobspec
from loraland_trainer.config import Config


def test_config_has_the_contracts_defaults() -> None:
    """With an empty environment the pod serves the port that the operator asks."""
    config = Config.from_environment({})

    assert config.port == jobspec.PROGRESS_PORT
    assert config.host == "0.0.0.0"  # noqa: S104 (a pod's own network)
    assert config.dataset_credentials == {}


def test_config_binds_to_the_pods_address() -> None:
    """On the laptop every pod has an address of its own."""
    config = Config.from_environment({"POD_IP": "127.1.2.3"})

    assert config.host == "127.1.2.3"


def test_credentials_of_the_data_set_are_apart_and_not_printed() -> None:
    """The artifact store's credentials are not the data set's, and neither shows in a log."""
    config = Config.from_environment(
        {
            "AWS_ACCESS_KEY_ID": "store",
            "DATASET_AWS_ACCESS_KEY_ID": "rows",
            "DATASET_AWS_SECRET_ACCESS_KEY": "sesame",
            "HF_TOKEN": "hf_sesame",
        }
    )

    assert config.dataset_credentials == {
        "aws_access_key_id": "rows",
        "aws_secret_access_key": "sesame",
    }
    assert "sesame" not in repr(config)
