from loraland_local.controllers.main import main

if __name__ == "__main__":
    main()
