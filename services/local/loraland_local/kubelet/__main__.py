from loraland_local.kubelet.main import main

if __name__ == "__main__":
    main()
