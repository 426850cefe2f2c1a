"""The networks of timm that the documentation lists."""

TESTED = (
    *("tf_efficientnet_lite0", "tf_efficientnet_lite2", "efficientnet_b0", "resnet18", "resnet50"),
    *("mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("convnext_tiny", "regnety_004", "densenet121", "vit_tiny_patch16_224"),
)
